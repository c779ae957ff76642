//! The report: the state's part of it, with what the shelf knows beside.

use super::service::Service;
use crate::clock::now_us;
use crate::control::protocol::{Report, ReportRequest};
use crate::queue::Reader;

/// Slowest books, where no number is asked for.
const SLOWEST: usize = 10;

/// On a connection of its own: it goes over all books, and nobody else is to wait for that.
pub(super) fn report(service: &Service, request: &ReportRequest) -> Result<Report, String> {
    let path = service.parts.queue.call(|queue| queue.path().to_owned()).map_err(|error| error.to_string())?;
    let passed_over = service.reconciler.shelf().passed_over;
    let reader = Reader::open(&path).map_err(|error| error.to_string())?;
    let limit = request.limit.unwrap_or(SLOWEST);
    reader.report(request.days, limit, &passed_over, now_us()).map_err(|error| error.to_string())
}
