//! What a Qdrant server's answers mean: errors sorted into wait, create again, and give up; acknowledgements told from
//! mere answers. Pure; must never pass on a text that may hold the API key.

use qdrant_client::QdrantError;
use qdrant_client::qdrant::{PointsOperationResponse, UpdateStatus};
use tonic::{Code, Status};

use super::super::StoreError;

/// Where a request went, for messages.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub url: String,
    pub collection: String,
}

impl Target {
    pub(super) fn unavailable(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Unavailable { location: self.url.clone(), reason: reason.into() }
    }

    pub(super) fn rejected(&self, reason: impl Into<String>) -> StoreError {
        StoreError::Rejected { location: self.url.clone(), reason: reason.into() }
    }

    /// A client's error as the trait's.
    pub(super) fn error(&self, error: &QdrantError) -> StoreError {
        match error {
            QdrantError::ResponseError { status } => self.status(status),
            QdrantError::ResourceExhaustedError { status, retry_after_seconds } => self.unavailable(format!(
                "the server limits its load, retry after {retry_after_seconds} s: {}",
                status.message()
            )),
            QdrantError::InvalidUri(error) => {
                self.rejected(format!("store.url is no address ({error}); use http://HOST:6334"))
            }
            QdrantError::Io(error) => self.unavailable(error.to_string()),
            other => self.rejected(other.to_string()),
        }
    }

    fn status(&self, status: &Status) -> StoreError {
        let message = status.message();
        match status.code() {
            Code::Internal if message.contains("Failed to connect") => self.unavailable(format!(
                "no connection ({}); start Qdrant there, or set store.url to its gRPC address",
                connect_reason(message)
            )),
            Code::Internal | Code::Unknown if looks_like_another_protocol(message) => self.unavailable(format!(
                "what answers there does not speak gRPC ({message}); store.url takes Qdrant's gRPC port, 6334 unless \
                 configured otherwise, not its HTTP port 6333"
            )),
            Code::Cancelled if message.contains("Timeout expired") => {
                self.unavailable("no answer within store.timeout_seconds")
            }
            Code::Internal
            | Code::Unknown
            | Code::Cancelled
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted => self.unavailable(format!("{:?}: {message}", status.code())),
            // A point that is gone is no missing collection; the caller looks again and repeats.
            Code::NotFound if message.contains("No point with id") => self.unavailable(message),
            Code::NotFound => {
                StoreError::CollectionMissing { location: self.url.clone(), collection: self.collection.clone() }
            }
            Code::Unauthenticated | Code::PermissionDenied => {
                self.rejected(format!("{message}; set store.api_key to a key that may write to '{}'", self.collection))
            }
            Code::Unimplemented => self.rejected(
                "what answers there is no Qdrant server, or one older than 1.10; store.url takes Qdrant's gRPC address",
            ),
            code => self.rejected(format!("{code:?}: {message}")),
        }
    }

    /// An acknowledgement: the server says that the write is applied, not only received.
    pub(super) fn completed(&self, response: &PointsOperationResponse) -> Result<(), StoreError> {
        let status = response.result.as_ref().map_or(UpdateStatus::UnknownUpdateStatus, |result| result.status());
        match status {
            UpdateStatus::Completed => Ok(()),
            other => Err(self
                .unavailable(format!("the write was answered {}, which is no acknowledgement", other.as_str_name()))),
        }
    }
}

/// The operating system's words out of the transport's nested debug text.
fn connect_reason(message: &str) -> &str {
    let reasons = ["Connection refused", "timed out", "deadline has elapsed", "dns error", "No route to host"];
    for reason in reasons {
        if message.contains(reason) {
            return reason;
        }
    }
    message
}

fn looks_like_another_protocol(message: &str) -> bool {
    [
        "frame with invalid size",
        "http2 error",
        "h2 protocol error",
        "invalid HTTP version",
        "grpc-status header missing",
    ]
    .iter()
    .any(|sign| message.contains(sign))
}

/// Major and minor of a version like `1.19.0-dev`; None where it is no version.
pub(super) fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target { url: "http://qdrant:6334".into(), collection: "books".into() }
    }

    fn map(code: Code, message: &str) -> StoreError {
        target().error(&QdrantError::ResponseError { status: Status::new(code, message) })
    }

    #[test]
    fn what_may_pass_is_waited_for() {
        for code in [
            Code::Internal,
            Code::Unknown,
            Code::Cancelled,
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::ResourceExhausted,
            Code::Aborted,
        ] {
            assert!(matches!(map(code, "x"), StoreError::Unavailable { .. }), "{code:?}");
        }
    }

    #[test]
    fn what_cannot_pass_is_refused() {
        for code in [Code::InvalidArgument, Code::Unauthenticated, Code::PermissionDenied, Code::Unimplemented] {
            assert!(matches!(map(code, "x"), StoreError::Rejected { .. }), "{code:?}");
        }
    }

    #[test]
    fn a_missing_collection_is_told_from_a_missing_point() {
        assert!(matches!(
            map(Code::NotFound, "Collection `books` doesn't exist!"),
            StoreError::CollectionMissing { .. }
        ));
        assert!(matches!(map(Code::NotFound, "No point with id 1 found"), StoreError::Unavailable { .. }));
    }

    #[test]
    fn refused_connections_name_the_address_and_the_remedy() {
        let message = "Failed to connect to http://qdrant:6334: transport error ... Connection refused";
        let text = map(Code::Internal, message).to_string();
        for part in ["http://qdrant:6334", "Connection refused", "store.url"] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }

    #[test]
    fn only_completed_is_an_acknowledgement() {
        use qdrant_client::qdrant::UpdateResult;
        let with = |status: UpdateStatus| PointsOperationResponse {
            result: Some(UpdateResult { operation_id: None, status: status.into() }),
            ..PointsOperationResponse::default()
        };
        assert!(target().completed(&with(UpdateStatus::Completed)).is_ok());
        for status in [UpdateStatus::Acknowledged, UpdateStatus::WaitTimeout, UpdateStatus::ClockRejected] {
            assert!(target().completed(&with(status)).unwrap_err().is_unavailable());
        }
        assert!(target().completed(&PointsOperationResponse::default()).is_err());
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(major_minor("1.19.0"), Some((1, 19)));
        assert_eq!(major_minor("v1.9.2-dev"), Some((1, 9)));
        assert_eq!(major_minor("nightly"), None);
    }
}
