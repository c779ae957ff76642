//! The connections of both servers: accepted up to a limit, served by hyper with a limit on the head's size and time, and
//! given up where the other end neither reads nor writes. Whatever a client does, it costs one connection for a while.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tower::ServiceExt;

use super::peer::{LocalPeer, Peer};

/// Header lines of one request.
const MOST_HEADERS: usize = 64;
/// Bytes of a request's head; hyper answers 431 beyond.
const LARGEST_HEAD: usize = 32 * 1024;
/// How long nothing is accepted after the system had no descriptor to give.
const BREATH: Duration = Duration::from_millis(100);

/// What one listener allows.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionLimits {
    /// Open connections; more wait in the kernel's line.
    pub connections: usize,
    /// Those of one peer (a user, an address); more are closed at once, so that one peer cannot shut out the others.
    pub connections_of_one: usize,
    /// For a request's head, and between two requests.
    pub head: Duration,
    /// Without a byte taken by a client that is owed some.
    pub write: Duration,
    /// For open requests at shutdown.
    pub last_requests: Duration,
}

/// A listening socket of either kind.
pub(super) trait Listener: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Peer)>> + Send;
}

impl Listener for tokio::net::UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<(Self::Stream, Peer)> {
        let (stream, _) = tokio::net::UnixListener::accept(self).await?;
        let uid = stream.peer_cred().ok().map(|peer| LocalPeer { uid: peer.uid() });
        Ok((stream, Peer::Local(uid)))
    }
}

impl Listener for tokio::net::TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<(Self::Stream, Peer)> {
        let (stream, address) = tokio::net::TcpListener::accept(self).await?;
        // Answers are written whole; waiting for more to send would only delay their ends.
        let _ = stream.set_nodelay(true);
        Ok((stream, Peer::Remote(address.ip().to_canonical())))
    }
}

/// Answers until `shutdown` resolves; requests in hand then have a while to end.
pub(super) async fn serve<L: Listener>(
    listener: L,
    router: Router,
    limits: ConnectionLimits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let of_peers = PeerCounts::default();
    let (closing, closed) = watch::channel(());
    let mut open = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        while open.try_join_next().is_some() {}
        let slot = tokio::select! {
            () = &mut shutdown => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        // The semaphore is never closed.
        let Ok(slot) = slot else { break };
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // A client that is gone already is nothing; where descriptors are out, some will come back.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    tracing::warn!("a connection cannot be accepted: {error}");
                    tokio::time::sleep(BREATH).await;
                }
                continue;
            }
        };
        let Some(counted) = of_peers.enter(peer, limits.connections_of_one) else {
            tracing::debug!("{peer:?} has {} connections open already", limits.connections_of_one);
            continue;
        };
        let serving = connection(stream, peer, router.clone(), limits, closed.clone());
        open.spawn(async move {
            serving.await;
            drop((slot, counted));
        });
    }
    drop(listener);
    // There is a receiver, `closed`, so it arrives.
    let _ = closing.send(());
    let all_ended = async { while open.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(limits.last_requests, all_ended).await;
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    limits: ConnectionLimits,
    mut closed: watch::Receiver<()>,
) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let answer = router.clone().oneshot(request);
        async move { Ok::<Response, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(MOST_HEADERS)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(Impatient::new(stream, limits.write)), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        _ = closed.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection of {peer:?} ended: {error}");
    }
}

/// How many connections each peer has.
#[derive(Debug, Clone, Default)]
struct PeerCounts(Arc<Mutex<HashMap<Peer, usize>>>);

/// One connection that is counted, until it is dropped.
struct Counted {
    counts: PeerCounts,
    peer: Peer,
}

impl PeerCounts {
    fn enter(&self, peer: Peer, most: usize) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted { counts: self.clone(), peer })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// A stream whose writes fail when the other end takes nothing for too long: hyper waits for ever.
struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, waiting: None }
    }

    /// The write's own result, or an error where it has waited for too long.
    fn within<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waiting = None;
            return polled;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no answer"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.within(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.within(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within(polled, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_has_no_more_connections_than_its_share() {
        let counts = PeerCounts::default();
        let ana = Peer::Local(Some(LocalPeer { uid: 1000 }));
        let first = counts.enter(ana, 2).unwrap();
        let _second = counts.enter(ana, 2).unwrap();
        assert!(counts.enter(ana, 2).is_none());
        let _other = counts.enter(Peer::Local(Some(LocalPeer { uid: 1001 })), 2).unwrap();
        drop(first);
        assert!(counts.enter(ana, 2).is_some());
        assert_eq!(counts.0.lock().unwrap().len(), 2, "nobody is remembered for nothing");
    }
}
