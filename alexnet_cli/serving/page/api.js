// What the server is asked, and its errors.

export class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// The JSON of an answer. Throws Failure with the one line that the server gives.
export async function ask(path, parameters = {}, options = {}) {
  return (await answered(path, parameters, options)).json();
}

// An answer that is a picture, and its headers.
export async function askPicture(path, parameters = {}, options = {}) {
  const answer = await answered(path, parameters, options);
  return { picture: await answer.blob(), headers: answer.headers };
}

async function answered(path, parameters, options) {
  let answer;
  try {
    answer = await fetch(address(path, parameters), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server does not answer. Is “alexnet serve” still running?", 0);
  }
  if (answer.ok) return answer;
  const content = await answer.json().catch((error) => {
    if (error.name === "AbortError") throw error; // another question has taken its place
    return {};
  });
  throw new Failure(sentence(content.error ?? `The server answered ${answer.status}`), answer.status);
}

export function address(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined));
  return query.size ? `${path}?${query}` : path;
}

export function thumbnail(row, { index, generation }) {
  return address(`/api/pictures/${row}`, { index, generation });
}

export function original(row, { index, generation }) {
  return address(`/api/pictures/${row}`, { full: "", index, generation });
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
