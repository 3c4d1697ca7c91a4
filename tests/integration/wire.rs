//! For tests: the protocol's bytes, said and heard one by one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use atm_tests::Server;
use bank_core::protocol::{
    ErrorCode, Greeting, Hello, MAGIC, Proof, Reply, ReplyBody, Request, RequestBody, Secret, VERSION,
    decode, encode,
};

/// A connection on which anything can be said, and each answer is kept as it came.
pub(crate) struct Wire(pub(crate) TcpStream);

impl Wire {
    /// Says hello, and gives the greeting.
    pub(crate) fn hello(server: &Server, terminal: &str, proof: Proof<'_>) -> (Wire, Vec<u8>) {
        Wire::hello_over(server.socket(), terminal, proof)
    }

    fn hello_over(stream: TcpStream, terminal: &str, proof: Proof<'_>) -> (Wire, Vec<u8>) {
        let mut wire = Wire(stream);
        let mut frame = Vec::new();
        let hello = Hello {
            magic: MAGIC,
            version: VERSION,
            terminal,
            proof,
        };
        encode(&hello, &mut frame);
        wire.0.write_all(&frame).unwrap();
        let greeting = wire.frame();
        (wire, greeting)
    }

    /// A terminal that was let in.
    pub(crate) fn terminal(server: &Server, terminal: &str) -> Wire {
        Wire::welcome(Wire::hello(server, terminal, Proof::None))
    }

    /// One that was let in at an address of this machine.
    pub(crate) fn terminal_at(server: &Server, address: Ipv4Addr) -> Wire {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let stream = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((address, 0).into()).unwrap();
            let stream = socket.connect(server.address().parse().unwrap()).await;
            stream.unwrap().into_std().unwrap()
        });
        stream.set_nonblocking(false).unwrap();
        Wire::welcome(Wire::hello_over(stream, "TEST", Proof::None))
    }

    fn welcome((wire, greeting): (Wire, Vec<u8>)) -> Wire {
        assert!(matches!(decode(&greeting), Ok(Greeting::Welcome { .. })));
        wire
    }

    /// The next frame's body.
    pub(crate) fn frame(&mut self) -> Vec<u8> {
        let mut header = [0; 4];
        self.0.read_exact(&mut header).unwrap();
        let mut body = vec![0; u32::from_be_bytes(header) as usize];
        self.0.read_exact(&mut body).unwrap();
        body
    }

    /// Asks everything in one packet, and gives the answers' bytes. All requests have the same id.
    pub(crate) fn ask_all(&mut self, bodies: &[RequestBody<'_>]) -> Vec<Vec<u8>> {
        let mut packet = Vec::new();
        for &body in bodies {
            encode(&Request { id: 7, body }, &mut packet);
        }
        self.0.write_all(&packet).unwrap();
        bodies.iter().map(|_| self.frame()).collect()
    }

    /// Asks, and gives the answer's bytes.
    pub(crate) fn ask(&mut self, body: RequestBody<'_>) -> Vec<u8> {
        self.ask_all(&[body]).remove(0)
    }
}

/// What an answer says.
pub(crate) fn reply(bytes: &[u8]) -> ReplyBody<'_> {
    decode::<Reply<'_>>(bytes).unwrap().body
}

/// Why an answer is no.
pub(crate) fn code(bytes: &[u8]) -> Option<ErrorCode> {
    match reply(bytes) {
        ReplyBody::Error { code, .. } | ReplyBody::Declined { code, .. } => ErrorCode::from_number(code),
        _ => None,
    }
}

/// A card and its PIN.
pub(crate) fn login<'a>(card: &'a str, pin: &'a str) -> RequestBody<'a> {
    RequestBody::Login {
        card,
        pin: Secret(pin),
    }
}
