"""The pages of a report: report.html, and one for each class with its pictures. Plain HTML: no script, no network."""

from collections.abc import Iterable, Sequence

import numpy as np

from alexnet_cli.console import percent
from alexnet_cli.data.originals import original
from alexnet_cli.figures.html import link, page, text
from alexnet_cli.reporting.results import ClassErrors, Confusion, Results
from alexnet_cli.reporting.tables import CLASSES_FILE, CONFUSION_FILE, PREDICTIONS_FILE
from alexnet_cli.wording import counted, shortened

MATRIX = 40  # classes in the confusion matrix
PAIRS = 20  # the most frequent confusions
WORST = 60  # the worst mistakes
LISTED = 200  # pictures of one cell
NAME = 48  # letters of a file's name
NO_BREAK = "\u00a0"  # a space at which no line breaks

STYLE = """
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: right; } th { font-weight: 600; }
th:first-child, td:first-child, .words { text-align: left; }
tr { border-bottom: 1px solid var(--line); }
ol, ul { columns: 24rem; max-width: 60rem; }
.scroll { overflow-x: auto; }
.rate { background: linear-gradient(to right, #c604 var(--rate), transparent var(--rate)) no-repeat;
  background-size: calc(100% - .4rem); }
.matrix td { padding: 0; min-width: 2.2rem; height: 1.9rem; text-align: center; border: 1px solid var(--soft); }
.matrix td a { display: block; line-height: 1.9rem; color: inherit; text-decoration: none; }
.matrix td a:hover, .matrix td a:focus { outline: 2px solid var(--accent); }
.matrix .right { background: rgb(0 130 70 / var(--share)); }
.matrix .wrong { background: rgb(204 102 0 / var(--share)); }
.matrix th { white-space: nowrap; max-width: 14rem; overflow: hidden; text-overflow: ellipsis; }
.matrix thead th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left; padding: .5rem .2rem;
  max-width: none; max-height: 12rem; }
.matrix thead th:first-child { writing-mode: horizontal-tb; transform: none; vertical-align: bottom; }
"""


def class_file(index: int) -> str:
    """The page of a class, from the folder of the report."""
    return f"classes/{index:05d}.html"


def picture_file(position: int) -> str:
    """The thumbnail of an image of the split, from the folder of the report."""
    return f"pictures/{position:07d}.jpg"


class Pages:
    """The pages of one report. ``drawn``: positions of the images that have a thumbnail."""

    def __init__(self, results: Results, drawn: np.ndarray) -> None:
        self.results, self.drawn = results, set(drawn.tolist())

    def report(self) -> str:
        """report.html."""
        results, errors = self.results, self.results.scores.evaluation()
        models, views = " + ".join(results.facts["models"]), results.facts["views"]
        title = f"{models} on {results.facts['dataset']}, {results.facts['split']}"
        few = [("top-1", errors.top1, errors.top1_ci95), ("top-5", errors.top5, errors.top5_ci95)]
        rates = ", ".join(f"{name} error {_percent(value, interval)}" for name, value, interval in few)
        made = "Made on {date} by alexnet {version}, on {machine}.".format(**results.facts)
        body = [
            f"<h1>{text(title)}</h1>",
            f"<p>{counted(errors.images, 'picture')}, {counted(views, 'view')} each: {rates}, with 95 % intervals.</p>",
            f'<p class="facts">{text(made)}{self._limit()}</p>',
            '<p><a href="#classes">Errors by class</a> · <a href="#confusions">confusions</a> · '
            '<a href="#worst">worst mistakes</a> · every prediction: '
            f'<a href="{PREDICTIONS_FILE}">{PREDICTIONS_FILE}</a></p>',
            *self._class_table(),
            *self._matrix(),
            *self._pairs(),
            *self._worst(),
        ]
        return page(f"Report: {title}", "\n".join(body), STYLE)

    def of_class(self, index: int) -> str:
        """The page of a class: its pictures by what they are taken for, and which others are taken for it."""
        results, one = self.results, self.results.classes[index]
        title = self._class_name(index)
        body = ['<p><a href="../report.html">The report</a></p>', f"<h1>{text(title)}</h1>"]
        body.append(f"<p>{counted(one.images, 'picture')}{_rates_in_words(one)}.</p>")
        for confusion, positions in results.cells(index):
            body += self._cell(confusion, positions)
        if others := results.taken_for(index):
            body.append("<h2>Taken for this class</h2><ul>")
            for each in others:
                body.append(f"<li>{self._cell_link(each, f'{each.images:,}', '../')} of {self._name(each.label)}</li>")
            body.append("</ul>")
        return page(title, "\n".join(body), STYLE)

    def _limit(self) -> str:
        of_all, drawn = len(self.results.images), len(self.drawn)
        return "" if drawn == of_all else f" {drawn:,} of the {of_all:,} pictures have a thumbnail: mistakes first."

    def _class_table(self) -> Iterable[str]:
        results = self.results
        yield '<h2 id="classes">Errors by class</h2>'
        yield f'<p class="note">The class with the most errors first; <a href="{CLASSES_FILE}">{CLASSES_FILE}</a> '
        yield "has them in label order. A class opens its pictures.</p>"
        yield '<div class="scroll"><table><thead><tr><th>class<th>pictures<th>wrong'
        yield "<th>top-1 error, % (95 % interval)<th>top-5 error, % (95 % interval)"
        yield '<th class="words">most often taken for</tr></thead><tbody>'
        for one in sorted(results.classes, key=lambda one: (-one.top1 / max(one.images, 1), -one.images, one.index)):
            mistakes = [each for each, _ in results.cells(one.index) if each.predicted != one.index]
            first = "".join(
                f"{self._cell_link(each, self._name(each.predicted))} {each.images:,}" for each in mistakes[:1]
            )
            cells = "".join(
                f'<td class="rate" style="--rate:{100 * value:.1f}%">{_percent(value, interval, "")}'
                for value, interval in one.rates()
            )
            yield (
                f'<tr><td><a href="{class_file(one.index)}">{text(self._class_name(one.index))}</a>'
                f'<td>{one.images:,}<td>{one.top1:,}{cells or "<td><td>"}<td class="words">{first}</tr>'
            )
        yield "</tbody></table></div>"

    def _matrix(self) -> Iterable[str]:
        """The confusion matrix of the classes that take part in the most mistakes, if there are more than MATRIX."""
        results, count = self.results, len(self.results.dataset.classes)
        shown = self._most_confused()
        yield '<h2 id="confusions">Confusions</h2>'
        part = (
            ""
            if len(shown) == count
            else (
                f" The {len(shown)} of {count:,} classes with the most mistakes; "
                f"the column “others” counts what is taken for the rest."
            )
        )
        yield f'<p class="note">A row is a class, a column what its pictures are taken for; a cell opens them.{part} '
        yield f'All of it: <a href="{CONFUSION_FILE}">{CONFUSION_FILE}</a>.</p>'
        columns = "".join(f"<th>{self._name(index)}" for index in shown)
        others = "" if len(shown) == count else "<th>others"
        yield f'<div class="scroll"><table class="matrix"><thead><tr><th>{columns}{others}</tr></thead><tbody>'
        for index in shown:
            cells = {each.predicted: each for each, _ in results.cells(index)}
            total = max(results.classes[index].images, 1)
            row = "".join(self._matrix_cell(cells.get(other), total) for other in shown)
            rest = sum(each.images for other, each in cells.items() if other not in shown)
            yield f"<tr><th>{self._name(index)}{row}{'' if not others else f'<td>{rest or str()}'}</tr>"
        yield "</tbody></table></div>"

    def _most_confused(self) -> list[int]:
        results, count = self.results, len(self.results.dataset.classes)
        mistakes = np.bincount(results.labels[results.wrong], minlength=count)
        mistakes += np.bincount(results.predicted[results.wrong], minlength=count)
        return sorted(np.argsort(-mistakes, kind="stable")[:MATRIX].tolist())

    def _matrix_cell(self, confusion: Confusion | None, of: int) -> str:
        if confusion is None:
            return "<td>"
        kind = "right" if confusion.label == confusion.predicted else "wrong"
        share = f"{0.12 + 0.6 * confusion.images / of:.2f}"
        return f'<td class="{kind}" style="--share:{share}">{self._cell_link(confusion, f"{confusion.images:,}")}'

    def _pairs(self) -> Iterable[str]:
        wrong = [each for each in self.results.confusions if each.label != each.predicted]
        frequent = sorted(wrong, key=lambda each: -each.images)[:PAIRS]
        if frequent:
            yield "<h2>The most frequent confusions</h2><ol>"
            for each in frequent:
                count = self._cell_link(each, f"{each.images:,}")
                yield f"<li>{count} of {self._name(each.label)} taken for {self._name(each.predicted)}</li>"
            yield "</ol>"

    def _worst(self) -> Iterable[str]:
        worst = self.results.worst(WORST)
        yield '<h2 id="worst">The worst mistakes</h2>'
        if not len(worst):
            yield '<p class="note">There are none.</p>'
            return
        yield '<p class="note">The highest probabilities of a wrong class. A name opens the original picture.</p>'
        yield f'<div class="pictures">{"".join(self._picture(position, "") for position in worst.tolist())}</div>'

    def _cell(self, confusion: Confusion, positions: np.ndarray) -> Iterable[str]:
        taken = "right" if confusion.label == confusion.predicted else f"taken for {self._name(confusion.predicted)}"
        yield f'<h2 id="as-{confusion.predicted}">{counted(confusion.images, "picture")} {taken}</h2>'
        if len(positions) > LISTED:
            yield f'<p class="note">The first {LISTED}; the others are in '
            yield f'<a href="../{PREDICTIONS_FILE}">{PREDICTIONS_FILE}</a>.</p>'
        pictures = (self._picture(position, "../") for position in positions[:LISTED].tolist())
        yield f'<div class="pictures">{"".join(pictures)}</div>'

    def _picture(self, position: int, up: str) -> str:
        """A figure; ``up`` leads from the page to the folder of the report."""
        results, scores = self.results, self.results.scores
        name = results.images.names[position]
        label, predicted = int(results.labels[position]), int(results.predicted[position])
        lines = [f"{self._name(predicted)} {_probability(scores.probabilities[position, 0])}"]
        if label != predicted:
            lines.append(f"is {self._name(label)} {_probability(scores.of_label[position])}")
        picture = '<div class="missing">no thumbnail</div>'
        if position in self.drawn:
            picture = f'<img src="{up}{picture_file(position)}" loading="lazy" alt="{text(name)}" title="{text(name)}">'
        file = original(results.dataset, name)
        below = link(file, text(shortened(name.rpartition("/")[2], NAME)))
        return (
            f"<figure>{link(file, picture)}<figcaption>{'<br>'.join(lines)}<br>"
            f'<span class="below">{below}</span></figcaption></figure>\n'
        )

    def _cell_link(self, confusion: Confusion, content: str, up: str = "") -> str:
        """``content``, which is HTML, as a link to the pictures of a cell."""
        title = text(f"{self.results.name(confusion.label)} taken for {self.results.name(confusion.predicted)}")
        return f'<a href="{up}{class_file(confusion.label)}#as-{confusion.predicted}" title="{title}">{content}</a>'

    def _name(self, index: int) -> str:
        return text(self.results.name(index))

    def _class_name(self, index: int) -> str:
        """In words and with its label, where the two differ."""
        name, label = self.results.name(index), self.results.dataset.classes[index]
        return name if name == label else f"{name} ({label})"


def _probability(value: float) -> str:
    return text(percent(value)).replace(" ", NO_BREAK)


def _percent(value: float, interval: Sequence[float], unit: str = NO_BREAK + "%") -> str:
    low, high = interval
    return f"{100 * value:.1f}{unit} ({100 * low:.1f}–{100 * high:.1f})"


def _rates_in_words(one: ClassErrors) -> str:
    rates = zip(("top-1", "top-5"), one.rates(), strict=False)
    return "".join(f", {name} error {_percent(value, interval)}" for name, (value, interval) in rates)
