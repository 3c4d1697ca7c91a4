//! Where operators knock: a Unix socket for the server's user alone.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
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
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Since nobody listened any more, another server may have taken the place.
        if fs::symlink_metadata(&self.path).is_ok_and(|there| there.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
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
    /// There is no such place.
    #[error(
        "--admin-socket {}: there is no directory {}: make it first, or choose another place",
        path.display(),
        directory.display()
    )]
    NoDirectory {
        /// The socket.
        path: PathBuf,
        /// Where it was to be.
        directory: PathBuf,
    },
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
            // Only a socket at which nobody listens is left from a server that was killed.
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => return Err(AdminSocketError::InUse(path.to_owned())),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(io(error)),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        if let Some(directory) = path
            .parent()
            .filter(|directory| directory != &Path::new("") && !directory.exists())
        {
            return Err(AdminSocketError::NoDirectory {
                path: path.to_owned(),
                directory: directory.to_owned(),
            });
        }
        // It is made where nobody else can go and moved when its mode is right: there is no moment at which another user could
        // connect.
        let private = path.with_added_extension(std::process::id().to_string());
        let inside = private.join("s");
        let clear = || {
            let _ = fs::remove_file(&inside);
            let _ = fs::remove_dir(&private);
        };
        // An earlier process with this number may have been killed just here.
        clear();
        let io_private = |source| AdminSocketError::Io {
            path: private.clone(),
            source,
        };
        DirBuilder::new()
            .mode(0o700)
            .create(&private)
            .map_err(io_private)?;
        let bound = UnixListener::bind(&inside).and_then(|listener| {
            fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
            let inode = fs::symlink_metadata(&inside)?.ino();
            fs::rename(&inside, path)?;
            Ok((listener, inode))
        });
        clear();
        let (listener, inode) = bound.map_err(io)?;
        let path = path.to_owned();
        Ok(AdminSocket {
            listener,
            file: SocketFile { path, inode },
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

        let (listener, file) = AdminSocket::bind(&path).unwrap().into_parts();
        drop(listener);
        let other = AdminSocket::bind(&path).expect("nobody listens any more");
        drop(file);
        assert!(path.exists(), "another server's socket stays");
        drop(other);
        assert!(!path.exists());

        // A killed server removes nothing.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(AdminSocket::bind(&path).expect("nobody is there any more"));
        fs::write(&path, "somebody's file").unwrap();
        assert!(matches!(
            AdminSocket::bind(&path),
            Err(AdminSocketError::NoSocket(_))
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's file");
        let nowhere = AdminSocket::bind(&directory.path().join("missing/admin")).unwrap_err();
        assert!(nowhere.to_string().contains("make it first"), "{nowhere}");
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing is left behind"
        );
    }
}
