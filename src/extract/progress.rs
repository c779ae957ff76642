//! Signs of life of the reader at work. Must never cost more than a look at the clock.

use std::sync::OnceLock;

static LISTENER: OnceLock<fn()> = OnceLock::new();

/// Called by readers wherever they get on: at a read, a page, an entry. A child that is silent for long is ended.
pub fn tick() {
    if let Some(listener) = LISTENER.get() {
        listener();
    }
}

/// From now on every [`tick`] of this process calls `listener`. The first listener stays.
pub fn listen(listener: fn()) {
    let _ = LISTENER.set(listener);
}
