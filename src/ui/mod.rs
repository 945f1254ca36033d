//! What a person sees: progress, tables, colours, prefixed logs, errors with their source lines.
