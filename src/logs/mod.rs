//! Container output: pipes spliced to raw files with a time index, and readers that merge, tail and follow them.
