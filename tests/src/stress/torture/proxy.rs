//! A cable that breaks: a TCP proxy that cuts connections in the middle of a frame, holds bytes up, and delivers some of
//! them after the client has given up.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::pause;

/// Bytes after which a connection is cut, at most: a login and some transactions.
const LONGEST_LIFE: i64 = 3000;

/// The longest that bytes are held up.
const LONGEST_DELAY: Duration = Duration::from_millis(60);

/// A proxy before a server that may come and go.
pub(super) struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    /// Where the server is.
    target: Mutex<String>,
    /// Whether anything is to break.
    mischief: AtomicBool,
    random: Mutex<StdRng>,
    cuts: AtomicU64,
    connections: Mutex<Vec<Arc<Pair>>>,
}

/// Both ends of a connection through the proxy.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    /// Bytes that are still let through.
    left: AtomicI64,
    cut: AtomicBool,
}

impl Proxy {
    /// A proxy on a free port, before a server that is told later.
    pub(super) fn start(seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound port").to_string();
        let shared = Arc::new(Shared {
            target: Mutex::default(),
            mischief: AtomicBool::new(true),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            cuts: AtomicU64::new(0),
            connections: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        // It ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.carry(client));
            }
        });
        Proxy { address, shared }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// From now on connections lead there.
    pub(super) fn lead_to(&self, server: &str) {
        *self.shared.target.lock().expect("no holder panics") = server.to_owned();
    }

    /// Whether connections are to break.
    pub(super) fn misbehave(&self, mischief: bool) {
        self.shared.mischief.store(mischief, Ordering::Release);
    }

    /// Pulls the cable: every connection is cut at once.
    pub(super) fn cut_all(&self) {
        for pair in self
            .shared
            .connections
            .lock()
            .expect("no holder panics")
            .drain(..)
        {
            self.shared.cut(&pair);
        }
    }

    /// How many connections were cut so far.
    pub(super) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn random<R>(&self, draw: impl FnOnce(&mut StdRng) -> R) -> R {
        draw(&mut self.random.lock().expect("no holder panics"))
    }

    fn carry(self: &Arc<Shared>, client: TcpStream) {
        let target = self.target.lock().expect("no holder panics").clone();
        let Ok(server) = TcpStream::connect(target) else {
            return;
        };
        let nodelay = client.set_nodelay(true).and(server.set_nodelay(true));
        if nodelay.is_err() {
            return;
        }
        let left = self.random(|random| {
            if random.random_bool(0.7) {
                random.random_range(1..LONGEST_LIFE)
            } else {
                i64::MAX
            }
        });
        let pair = Arc::new(Pair {
            client,
            server,
            left: AtomicI64::new(left),
            cut: AtomicBool::new(false),
        });
        {
            let mut connections = self.connections.lock().expect("no holder panics");
            connections.retain(|pair| !pair.cut.load(Ordering::Relaxed));
            connections.push(Arc::clone(&pair));
        }
        let (shared, answers) = (Arc::clone(self), Arc::clone(&pair));
        let down = thread::spawn(move || shared.copy(&answers, &answers.server, &answers.client));
        self.copy(&pair, &pair.client, &pair.server);
        let _ = down.join();
        pair.cut.store(true, Ordering::Relaxed);
    }

    /// Copies bytes until either end is closed, or the connection's life is over.
    fn copy(&self, pair: &Pair, mut from: &TcpStream, mut to: &TcpStream) {
        let mut chunk = [0; 2048];
        while let Ok(bytes @ 1..) = from.read(&mut chunk) {
            let mischief = self.mischief.load(Ordering::Acquire);
            if mischief && self.random(|random| random.random_bool(0.1)) {
                pause(self.random(|random| random.random_range(Duration::ZERO..LONGEST_DELAY)));
            }
            let left = pair.left.fetch_sub(bytes as i64, Ordering::Relaxed);
            if !mischief || left >= bytes as i64 {
                if to.write_all(&chunk[..bytes]).is_err() {
                    break;
                }
                continue;
            }
            let whole = usize::try_from(left).unwrap_or(0);
            let _ = to.write_all(&chunk[..whole]);
            // Now and then what the client has sent still arrives, long after it has given up.
            if std::ptr::eq(from, &pair.client) && self.random(|random| random.random_bool(0.5)) {
                let _ = pair.client.shutdown(Shutdown::Both);
                pause(self.random(|random| random.random_range(Duration::ZERO..3 * LONGEST_DELAY)));
                let _ = to.write_all(&chunk[whole..bytes]);
            }
            self.cut(pair);
            return;
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }

    fn cut(&self, pair: &Pair) {
        if !pair.cut.swap(true, Ordering::Relaxed) {
            self.cuts.fetch_add(1, Ordering::Relaxed);
        }
        let _ = pair.client.shutdown(Shutdown::Both);
        let _ = pair.server.shutdown(Shutdown::Both);
    }
}
