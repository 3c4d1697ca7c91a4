//! Where operators knock: a Unix socket for the server's user alone.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// An operators' socket. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The socket's file, which is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Why there is no operators' socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    /// Another server is there.
    #[error("--admin-socket {}: another server listens there already", .0.display())]
    InUse(PathBuf),
    /// Something else is there.
    #[error("--admin-socket {} is there already and is no socket: choose another name", .0.display())]
    NoSocket(PathBuf),
    /// The operating system does not let us.
    #[error("--admin-socket {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl AdminSocket {
    /// Listens at `path`, with mode 0600. What a server that was killed has left there is replaced.
    ///
    /// # Errors
    /// [`AdminSocketError`].
    pub fn bind(path: &Path) -> Result<AdminSocket, AdminSocketError> {
        let io = |source| AdminSocketError::Io {
            path: path.to_owned(),
            source,
        };
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(AdminSocketError::NoSocket(path.to_owned()));
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(AdminSocketError::InUse(path.to_owned()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        // It is made where nobody else can go and moved when its mode is right: there is no moment at which another user could
        // connect.
        let private = path.with_added_extension(std::process::id().to_string());
        DirBuilder::new().mode(0o700).create(&private).map_err(io)?;
        let inside = private.join("s");
        let bound = UnixListener::bind(&inside).and_then(|listener| {
            fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
            fs::rename(&inside, path)?;
            Ok(listener)
        });
        let _ = fs::remove_file(&inside);
        let _ = fs::remove_dir(&private);
        Ok(AdminSocket {
            listener: bound.map_err(io)?,
            file: SocketFile(path.to_owned()),
        })
    }

    /// The listener, and what removes the file once nobody listens any more.
    pub(crate) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// The user at the other end, if he may be an operator: the one as whom the server runs, or root.
pub(crate) fn operator(stream: &UnixStream) -> io::Result<u32> {
    let user = stream.peer_cred()?.uid();
    if user == 0 || user == rustix::process::geteuid().as_raw() {
        Ok(user)
    } else {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("user {user} is no operator"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_users_alone_and_takes_the_place_of_a_dead_one_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin");
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(
            AdminSocket::bind(&path),
            Err(AdminSocketError::InUse(_))
        ));
        drop(socket);
        assert!(!path.exists(), "it is removed in order");

        // A killed server removes nothing.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(AdminSocket::bind(&path).expect("nobody is there any more"));
        fs::write(&path, "somebody's file").unwrap();
        assert!(matches!(
            AdminSocket::bind(&path),
            Err(AdminSocketError::NoSocket(_))
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's file");
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing is left behind"
        );
    }
}
