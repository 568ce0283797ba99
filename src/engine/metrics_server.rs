//! What an operator's machines ask of a hub, over HTTP on an address of its own: `/metrics`, `/healthz`, `/readyz`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::hub::Shared;
use super::listen::resolve;

/// Connections at once: whoever scrapes is one or two.
const MAX_CONNECTIONS: usize = 16;

/// How long a connection may take to say what it asks.
const HEADER_LIMIT: Duration = Duration::from_secs(1);

/// How long a request may take, from the connection to the answer's last byte.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// How long the store's thread may take to answer a hub that is ready.
const READY_LIMIT: Duration = Duration::from_secs(2);

/// Before the next connection is accepted, if the system has no more sockets.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens on a TCP address, `host:port`.
pub(super) async fn bind(listen: &str) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(resolve(listen, None).await?).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// A connection that is being served.
struct Open {
    task: AbortHandle,
    /// Whether it has said what it asks.
    has_asked: Arc<AtomicBool>,
}

/// Answers until it is aborted. It keeps no hub alive.
pub(super) async fn serve(listener: TcpListener, hub: Weak<Shared>, stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut open: VecDeque<Open> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        open.retain(|it| !it.task.is_finished());
        if open.len() >= MAX_CONNECTIONS {
            // Whoever keeps silent longest gives way; those that have asked are answered.
            let silent = open.iter().position(|it| !it.has_asked.load(Ordering::Relaxed));
            silent.and_then(|at| open.remove(at)).inspect(|it| it.task.abort());
        }
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (hub, stop, has_asked) = (hub.clone(), stop.clone(), Arc::new(AtomicBool::new(false)));
        let asked = Arc::clone(&has_asked);
        let task = tokio::spawn(async move {
            serve_one(stream, hub, stop, &asked).await;
            drop(place);
        });
        open.push_back(Open { task: task.abort_handle(), has_asked });
    }
}

/// Answers one request.
async fn serve_one(
    stream: TcpStream,
    hub: Weak<Shared>,
    stop: watch::Receiver<bool>,
    has_asked: &Arc<AtomicBool>,
) {
    let service = service_fn(|request| {
        has_asked.store(true, Ordering::Relaxed);
        let (hub, is_stopping) = (hub.clone(), *stop.borrow());
        async move { Ok::<_, Infallible>(answer(&request, &hub, is_stopping).await) }
    });
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // Whoever hangs up, or is too slow, learns nothing.
    let is_over = timeout(HEADER_LIMIT, &mut connection).await.is_ok();
    if !is_over && has_asked.load(Ordering::Relaxed) {
        let _ = timeout(REQUEST_LIMIT, connection).await;
    }
}

async fn answer(request: &Request<Incoming>, hub: &Weak<Shared>, is_stopping: bool) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
    }
    match (request.uri().path(), hub.upgrade()) {
        ("/healthz", _) => text(StatusCode::OK, "ok\n".to_owned()),
        ("/readyz", None) => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
        ("/readyz", Some(hub)) => readiness(&hub, is_stopping).await,
        ("/metrics", Some(hub)) => {
            let body = hub.metrics.encode(&hub.stats(), hub.writer.waiting());
            let mut response = text(StatusCode::OK, body);
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
            response
        }
        ("/metrics", None) => text(StatusCode::SERVICE_UNAVAILABLE, String::new()),
        _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz or /readyz\n".to_owned()),
    }
}

/// Whether agents are let in, and the store's thread answers.
async fn readiness(hub: &Shared, is_stopping: bool) -> Response<Full<Bytes>> {
    let why_not = if is_stopping {
        "stopping\n"
    } else {
        match timeout(READY_LIMIT, hub.writer.is_readable()).await {
            Ok(Ok(())) => return text(StatusCode::OK, "ok\n".to_owned()),
            Ok(Err(_)) => "the store cannot be read\n",
            Err(_) => "the store is slow\n",
        }
    };
    text(StatusCode::SERVICE_UNAVAILABLE, why_not.to_owned())
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
