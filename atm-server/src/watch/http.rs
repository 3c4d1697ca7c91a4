//! The client handler for those who watch: HTTP/1.1, one request a connection, nothing but looking.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use bank_core::limits::{HTTP_DEADLINE, MAX_HTTP_HEAD_BYTES, MAX_HTTP_HEADERS, REQUEST_DEADLINE};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Watch, exposition, status};
use crate::serve::ClientHandler;

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Said to every browser: nothing comes from elsewhere, nobody shows this within a page of his own, and nothing is kept.
const GUARDS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (header::CACHE_CONTROL, "no-store"),
];

/// Serves those who watch.
pub(crate) struct WatchHandler {
    watch: Arc<Watch>,
    hosts: Vec<String>,
}

/// A status, the media type, and what is said.
type Answer = (StatusCode, &'static str, String);

impl WatchHandler {
    pub(crate) fn new(watch: Arc<Watch>, hosts: Vec<String>) -> WatchHandler {
        WatchHandler { watch, hosts }
    }

    async fn answer<B>(&self, request: &Request<B>) -> Response<String> {
        let (status, media_type, body) = self.look(request).await;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        for (name, value) in GUARDS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }

    async fn look<B>(&self, request: &Request<B>) -> Answer {
        let text = |status, text: &str| (status, TEXT, format!("{text}\n"));
        let host = request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        if !host.is_some_and(|host| self.is_called(host)) {
            return text(
                StatusCode::MISDIRECTED_REQUEST,
                "this server does not go by that name: call it by its address, or start it with --metrics-host NAME",
            );
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "here is nothing to do but to look (GET, HEAD)",
            );
        }
        let ok = |media_type, body: &str| (StatusCode::OK, media_type, body.to_owned());
        match request.uri().path() {
            "/" => ok(HTML, include_str!("page.html")),
            "/page.css" => ok("text/css; charset=utf-8", include_str!("page.css")),
            "/page.js" => ok("text/javascript; charset=utf-8", include_str!("page.js")),
            "/icon.svg" => ok("image/svg+xml", include_str!("icon.svg")),
            "/status.json" => match status::tell(&self.watch).await {
                Ok(status) => (StatusCode::OK, "application/json", status.to_string()),
                Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
            },
            "/metrics" => (
                StatusCode::OK,
                exposition::MEDIA_TYPE,
                exposition::tell(&self.watch),
            ),
            "/healthz" => text(StatusCode::OK, "ok"),
            "/readyz" => match self.watch.ready() {
                Ok(()) => text(StatusCode::OK, "ready"),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {why}")),
            },
            _ => text(
                StatusCode::NOT_FOUND,
                "there is nothing here: try /, /metrics, /healthz, /readyz or /status.json",
            ),
        }
    }

    /// Whether a `Host` is an address or a name of ours. A web page of somebody else's can have a browser ask here only by a
    /// name of its own, which leads here.
    fn is_called(&self, host: &str) -> bool {
        if host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok() {
            return true;
        }
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let is_address = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .is_some_and(|name| name.parse::<IpAddr>().is_ok());
        let ours = self.hosts.iter().map(String::as_str).chain(["localhost"]);
        is_address || ours.into_iter().any(|ours| ours.eq_ignore_ascii_case(name))
    }
}

impl ClientHandler for WatchHandler {
    async fn handle(&self, stream: TcpStream, _: SocketAddr, shutdown: CancellationToken) {
        let service = service_fn(async |request| Ok::<_, Infallible>(self.answer(&request).await));
        let connection = http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(MAX_HTTP_HEAD_BYTES)
            .max_headers(MAX_HTTP_HEADERS)
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_DEADLINE)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let serving = async {
            tokio::select! {
                served = connection.as_mut() => return served,
                () = shutdown.cancelled() => {}
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        };
        if let Ok(Err(error)) = timeout(HTTP_DEADLINE, serving).await {
            tracing::debug!(%error, "a watcher's connection broke");
        }
    }

    async fn refuse(&self, mut stream: TcpStream) {
        let _ = stream
            .write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .await;
    }
}

#[cfg(test)]
mod tests {
    use bank_core::bank_file::{CardSecurity, create_bank};
    use bank_core::{Moment, Peppers, PinProfile};

    use super::*;
    use crate::atm_handler::AtmHandler;
    use crate::server::Service;

    fn handler(directory: &std::path::Path, stopping: CancellationToken) -> WatchHandler {
        let path = directory.join("bank.db");
        let peppers = Peppers::random().unwrap();
        let security = CardSecurity {
            profile: PinProfile::Fast,
            peppers: &peppers,
        };
        create_bank(&path, false, &security, Moment::now(), &[], &[], &|_| ()).unwrap();
        let bank = Arc::new(bank_core::Bank::open(&path, peppers).unwrap());
        let atm = AtmHandler::new(Arc::clone(&bank), Service::on_loopback(1));
        let watch = Watch::new(bank, Arc::new(atm), stopping);
        WatchHandler::new(Arc::new(watch), vec!["bank.example.org".into()])
    }

    fn request(method: &str, host: &str, path: &str) -> Request<()> {
        let request = Request::builder().method(method).uri(path);
        request.header(header::HOST, host).body(()).unwrap()
    }

    #[tokio::test]
    async fn it_answers_to_its_own_names_and_to_looking_alone() {
        let directory = tempfile::tempdir().unwrap();
        let handler = handler(directory.path(), CancellationToken::new());
        let status = async |method, host, path| {
            handler
                .answer(&request(method, host, path))
                .await
                .status()
                .as_u16()
        };
        for host in [
            "127.0.0.1:9100",
            "127.0.0.1",
            "[::1]:9100",
            "[::1]",
            "localhost",
            "LocalHost:1",
            "192.0.2.1:80",
            "bank.example.org:9100",
            "BANK.example.org",
        ] {
            assert_eq!(status("GET", host, "/healthz").await, 200, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9100",
            "127.0.0.1.evil.example",
            "localhost.evil.example:80",
            "",
            "bank.example.org:x",
        ] {
            assert_eq!(status("GET", host, "/healthz").await, 421, "{host}");
        }
        let without = Request::builder().uri("/healthz").body(()).unwrap();
        assert_eq!(handler.answer(&without).await.status(), 421);
        assert_eq!(status("HEAD", "localhost", "/metrics").await, 200);
        assert_eq!(status("GET", "localhost", "/other").await, 404);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            let refused = handler.answer(&request(method, "localhost", "/")).await;
            assert_eq!(
                (refused.status().as_u16(), &refused.headers()["allow"]),
                (405, &HeaderValue::from_static("GET, HEAD"))
            );
        }
    }

    #[tokio::test]
    async fn it_is_ready_until_it_stops_or_the_journal_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let stopping = CancellationToken::new();
        let handler = handler(directory.path(), stopping.clone());
        let ready = async || handler.look(&request("GET", "localhost", "/readyz")).await;
        assert_eq!(ready().await.0, StatusCode::OK);
        stopping.cancel();
        let (status, _, why) = ready().await;
        assert_eq!(
            (status.as_u16(), why.as_str()),
            (503, "not ready: the server is shutting down\n")
        );

        let directory = tempfile::tempdir().unwrap();
        let handler = self::handler(directory.path(), CancellationToken::new());
        handler.watch.bank.close().unwrap();
        let (status, _, why) = handler.look(&request("GET", "localhost", "/readyz")).await;
        assert_eq!(
            (status.as_u16(), why.as_str()),
            (503, "not ready: the bank is shutting down\n")
        );
    }
}
