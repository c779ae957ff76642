//! The control client: one request over the Unix socket, its answer or a reason a person can act on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::protocol::{ErrorResponse, PROTOCOL, PROTOCOL_HEADER};

/// Longest wait for an answer: a search may have to wait for a batch on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a query's value may contain as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "the service does not answer on {}: {source}\nis it running? `systemctl status alexandria-ingestd` says; \
         another socket is named with --socket",
        socket.display()
    )]
    NotReachable { socket: PathBuf, source: std::io::Error },
    #[error("the service did not answer within {} s on {}", PATIENCE.as_secs(), socket.display())]
    TimedOut { socket: PathBuf },
    #[error("{error}{}", hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default())]
    Refused { status: u16, error: String, hint: Option<String> },
    #[error(
        "the service speaks protocol {found}, this program {PROTOCOL}: use the alexandriactl of the service's own version"
    )]
    OtherProtocol { found: String },
    #[error("what answers on {} does not speak this service's language: {reason}", socket.display())]
    Broken { socket: PathBuf, reason: String },
}

/// Talks to one service.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: &Path) -> Client {
        Client { socket: socket.to_owned() }
    }

    /// GET with query parameters.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, ClientError> {
        self.request(Method::GET, &with_query(path, query), Bytes::new()).await
    }

    /// POST with a JSON body.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.request(Method::POST, path, body.into()).await
    }

    /// An answer in its own type: for a caller that also wants it as it came.
    ///
    /// # Errors
    /// [`ClientError::Broken`].
    pub fn understand<T: DeserializeOwned>(&self, answer: serde_json::Value) -> Result<T, ClientError> {
        serde_json::from_value(answer).map_err(|error| self.broken(error))
    }

    async fn request<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        tokio::time::timeout(PATIENCE, self.exchange(method, path, body))
            .await
            .unwrap_or_else(|_| Err(ClientError::TimedOut { socket: self.socket.clone() }))
    }

    async fn exchange<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::NotReachable { socket: self.socket.clone(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        // The connection drives itself; its errors come out of the request as well.
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let answer = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        let status = answer.status();
        let protocol =
            answer.headers().get(PROTOCOL_HEADER).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let bytes = answer.into_body().collect().await.map_err(|error| self.broken(error))?.to_bytes();
        driver.abort();
        match protocol {
            None => return Err(self.broken(format!("HTTP {status} without the header {PROTOCOL_HEADER}"))),
            Some(found) if found != PROTOCOL.to_string() => return Err(ClientError::OtherProtocol { found }),
            Some(_) => {}
        }
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| self.broken(error));
        }
        let refusal: ErrorResponse = serde_json::from_slice(&bytes).map_err(|error| self.broken(error))?;
        Err(ClientError::Refused { status: status.as_u16(), error: refusal.error, hint: refusal.hint })
    }

    fn broken(&self, reason: impl ToString) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), reason: reason.to_string() }
    }
}

fn with_query(path: &str, query: &[(&str, String)]) -> String {
    let pairs: Vec<_> =
        query.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, QUERY))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_survive_any_text() {
        assert_eq!(with_query("/status", &[]), "/status");
        let text = with_query("/search", &[("q", "a&b=č d+1".into()), ("limit", "3".into())]);
        assert_eq!(text, "/search?q=a%26b%3D%C4%8D%20d%2B1&limit=3");
    }
}
