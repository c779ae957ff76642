//! The control client: arguments and exit codes only.

fn main() {}
