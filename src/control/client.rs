//! The control client: one request over the Unix socket, its answer or a reason a person can act on.

use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::protocol::{ErrorResponse, PROTOCOL, PROTOCOL_HEADER};

/// Longest wait for an answer: a search may have to wait for a batch on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest wait for work over the whole index or the whole state.
const LONG_PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// What a query's value may contain as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the service does not answer on {}: {source}\n{}", socket.display(), what_to_do(source))]
    NotReachable { socket: PathBuf, source: std::io::Error },
    #[error(
        "the service did not answer within {} s on {}\nis it stuck? `journalctl -u alexandria-ingestd -n 50` says what it \
         is at",
        patience.as_secs(),
        socket.display()
    )]
    TimedOut { socket: PathBuf, patience: Duration },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{error}{}", hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default())]
    Refused { status: u16, error: String, hint: Option<String> },
    #[error(
        "the service ({server}) speaks protocol {found}, this program (alexandriactl {}) {PROTOCOL}: nothing was done; \
         use the alexandriactl of the service's own version, or, after an upgrade, `systemctl restart alexandria-ingestd`",
        env!("CARGO_PKG_VERSION")
    )]
    OtherProtocol { found: String, server: String },
    #[error(
        "what answers on {} does not speak this service's language: {reason}\nis it another program's socket? Name the \
         service's with --socket; or the service ended meanwhile: `systemctl status alexandria-ingestd` says",
        socket.display()
    )]
    Broken { socket: PathBuf, reason: String },
}

/// The next step of a person whose request nobody takes.
fn what_to_do(source: &std::io::Error) -> &'static str {
    match source.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "this user may not use the socket: `sudo usermod -aG alexandria-ingestd $USER` and a new login let it; or use \
             sudo once"
        }
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            "is it running? `systemctl status alexandria-ingestd` says, `sudo systemctl start alexandria-ingestd` starts \
             it; another socket is named with --socket"
        }
        _ => "`systemctl status alexandria-ingestd` says how it is; another socket is named with --socket",
    }
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
        self.within(PATIENCE, self.exchange(Method::GET, &with_query(path, query), Bytes::new())).await
    }

    /// POST with a JSON body.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.within(PATIENCE, self.exchange(Method::POST, path, body.into())).await
    }

    /// POST with a JSON body, for work that may take hours.
    pub async fn post_and_wait<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.within(LONG_PATIENCE, self.exchange(Method::POST, path, body.into())).await
    }

    /// GET of a file, written to a new file at `to`, whole or not at all. Returns its size in bytes.
    ///
    /// # Errors
    /// Those of a request; [`ClientError::File`], also where there is a file already.
    pub async fn download(&self, path: &str, to: &Path) -> Result<u64, ClientError> {
        let on_file = |source| ClientError::File { path: to.to_owned(), source };
        if to.exists() {
            return Err(on_file(std::io::Error::new(
                std::io::ErrorKind::AlreadyExists,
                "there is a file of that name already; name another one",
            )));
        }
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = to.with_file_name(name);
        let received = self.within(LONG_PATIENCE, self.receive(path, &part)).await;
        let placed = received.and_then(|size| std::fs::rename(&part, to).map(|()| size).map_err(on_file));
        if placed.is_err() {
            // Half of a file is of no use; where it cannot be removed it is not there.
            let _ = std::fs::remove_file(&part);
        }
        placed
    }

    async fn receive(&self, path: &str, part: &Path) -> Result<u64, ClientError> {
        let on_file = |source| ClientError::File { path: part.to_owned(), source };
        let mut body = self.send(Method::GET, path, Bytes::new()).await?;
        let mut file = std::fs::File::create(part).map_err(on_file)?;
        let mut size = 0;
        // The length is in the answer's head: a body that ends early is an error.
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| self.broken(error))?.into_data() else { continue };
            file.write_all(&data).map_err(on_file)?;
            size += data.len() as u64;
        }
        file.sync_all().map_err(on_file)?;
        Ok(size)
    }

    /// An answer in its own type: for a caller that also wants it as it came.
    ///
    /// # Errors
    /// [`ClientError::Broken`].
    pub fn understand<T: DeserializeOwned>(&self, answer: serde_json::Value) -> Result<T, ClientError> {
        serde_json::from_value(answer).map_err(|error| self.broken(error))
    }

    async fn within<T>(
        &self,
        patience: Duration,
        request: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::time::timeout(patience, request)
            .await
            .unwrap_or_else(|_| Err(ClientError::TimedOut { socket: self.socket.clone(), patience }))
    }

    async fn exchange<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let body = self.send(method, path, body).await?;
        let bytes = body.collect().await.map_err(|error| self.broken(error))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|error| self.broken(error))
    }

    /// Sends a request; the body of its answer, if that is a success.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Incoming, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::NotReachable { socket: self.socket.clone(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        // The connection drives itself until both sides are done; its errors come out of the request as well.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header(PROTOCOL_HEADER, PROTOCOL)
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let answer = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        let status = answer.status();
        let header =
            |name: &str| answer.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        match header(PROTOCOL_HEADER) {
            None => return Err(self.broken(format!("HTTP {status} without the header {PROTOCOL_HEADER}"))),
            Some(found) if found != PROTOCOL.to_string() => {
                let server = header("server").unwrap_or_else(|| "of another version".to_owned()).replace('/', " ");
                return Err(ClientError::OtherProtocol { found, server });
            }
            Some(_) => {}
        }
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let bytes = answer.into_body().collect().await.map_err(|error| self.broken(error))?.to_bytes();
        let refusal: ErrorResponse = serde_json::from_slice(&bytes).map_err(|error| self.broken(error))?;
        Err(ClientError::Refused { status: status.as_u16(), error: refusal.error, hint: refusal.hint })
    }

    /// An answer that makes no sense.
    pub fn broken(&self, reason: impl ToString) -> ClientError {
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
