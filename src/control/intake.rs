//! A request's body, taken in whole before anything is done with it: within a time, a size, and the room that all
//! bodies together may take. Must never hold more than was sent, nor wait for a client that has stopped sending.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Refusal;

/// The unit in which room is given, in bytes.
const UNIT: usize = 1024;
/// What is read and thrown away of a body that is refused, so that a client which sends before it reads gets the answer:
/// so many times the largest body taken, for so long.
const WASTE: usize = 4;
const WASTE_PATIENCE: Duration = Duration::from_secs(2);

/// What a server takes in.
#[derive(Clone)]
pub(super) struct Intake {
    /// Bytes of one body.
    largest: usize,
    /// For the whole of one.
    patience: Duration,
    /// For the bodies of all requests that are not answered yet, in [`UNIT`]s.
    room: Arc<Semaphore>,
    /// How a refusal looks to whom asked for this.
    render: fn(&Uri, Refusal) -> Response,
}

impl Intake {
    /// `bodies`: how many of the largest size there is room for.
    pub fn new(largest: usize, bodies: usize, patience: Duration, render: fn(&Uri, Refusal) -> Response) -> Self {
        let units = (largest.div_ceil(UNIT) * bodies).min(Semaphore::MAX_PERMITS);
        Self { largest, patience, room: Arc::new(Semaphore::new(units)), render }
    }

    fn too_large(&self) -> Refusal {
        let text = format!("the request's body is over the limit of {} bytes", self.largest);
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text).hint("send less in one request")
    }

    async fn read(
        &self,
        mut body: Body,
        announced: Option<u64>,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
        if announced.is_some_and(|length| length > self.largest as u64) {
            if announced.is_some_and(|length| length <= (self.largest * WASTE) as u64) {
                waste(body, self.largest * WASTE).await;
            }
            return Err(self.too_large());
        }
        let mut bytes = Vec::new();
        let mut held: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Refusal::new(
                    StatusCode::BAD_REQUEST,
                    format!("the request's body ended early or is malformed: {error}"),
                )
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > self.largest {
                drop((bytes, held));
                waste(body, self.largest * (WASTE - 1)).await;
                return Err(self.too_large());
            }
            let wanted = (bytes.len() + data.len()).div_ceil(UNIT);
            let missing = wanted - held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let Ok(more) = self.room.clone().try_acquire_many_owned(missing as u32) else {
                return Err(Refusal::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "there is no room for another large request now",
                )
                .hint("try again in a moment, or send less at once"));
            };
            match &mut held {
                Some(held) => held.merge(more),
                None => held = Some(more),
            }
            bytes.extend_from_slice(&data);
        }
        Ok((bytes.into(), held))
    }
}

/// Reads and throws away at most `most` bytes of a body, for a short while.
pub(super) async fn waste(mut body: Body, most: usize) {
    let read = async {
        let mut wasted = 0;
        while let Some(Ok(frame)) = body.frame().await {
            wasted += frame.data_ref().map_or(0, Bytes::len);
            if wasted > most {
                break;
            }
        }
    };
    // Whether it ended or not, the answer is the same.
    let _ = tokio::time::timeout(WASTE_PATIENCE, read).await;
}

/// Middleware: hands on a request whose body is there, or refuses it and closes the connection, since the rest of a body
/// that nobody reads may never end.
pub(super) async fn take_in(State(intake): State<Intake>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let read = match tokio::time::timeout(intake.patience, intake.read(body, announced)).await {
        Ok(read) => read,
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the request's body did not arrive within {} s", intake.patience.as_secs_f64()),
        )),
    };
    match read {
        Ok((bytes, held)) => {
            let answer = next.run(Request::from_parts(parts, Body::from(bytes))).await;
            drop(held);
            answer
        }
        Err(refusal) => {
            let mut answer = (intake.render)(&parts.uri, refusal);
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
                answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            answer
        }
    }
}
