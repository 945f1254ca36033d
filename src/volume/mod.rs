//! Named and anonymous volumes: directories with a record each.
