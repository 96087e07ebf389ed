"""Reports of an evaluation: errors by class, confusions, mistakes, every prediction; as tables and as pages."""
