//! What the forked child of the keeper does before it becomes the container: a list of steps (data) and their interpreter.
