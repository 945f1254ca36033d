//! Pure: `model` to `spec`, desired against observed, the DAG of steps with reasons.
