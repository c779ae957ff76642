//! The service: arguments and exit codes only.

fn main() {}
