//! Making certificates for server and terminals.

use bank_core::Moment;

use super::{Ended, Error, say};
use crate::args::CertificateArgs;
use crate::certificates::{Authority, CertifiedFiles, check_names};

pub(super) fn certificate(args: &CertificateArgs) -> Result<Ended, Error> {
    let CertificateArgs {
        dir,
        server,
        terminal,
        days,
        replace,
    } = args;
    check_names(server, terminal)?;
    if *replace && !dir.join("ca.key").exists() {
        return Err(format!(
            "there is no authority in {}, so there is nothing to replace: look at --dir, or leave --replace out to make one",
            dir.display()
        )
        .into());
    }
    let (authority, is_new) = Authority::open_or_create(dir, Moment::now().date)?;
    let (ca, ca_key) = (dir.join("ca.pem"), dir.join("ca.key"));
    let (ca, ca_key) = (ca.display(), ca_key.display());
    if is_new {
        say(format_args!(
            "Made a new authority.\n  {ca}  everybody may have it: every terminal needs it (atm-cli --tls-ca), and the server, if \
             terminals\n  {:width$}  are to have certificates (atm-server serve --tls-client-ca)\n  {ca_key}  names servers and terminals: whoever has it can pass for the bank. Keep it offline,\n  {:width$}  with a backup; neither the server nor any terminal needs it. It is good for ten years",
            "",
            "",
            width = ca.to_string().len(),
        ));
    } else if server.is_empty() && terminal.is_empty() {
        return Err(format!(
            "the authority {ca} is there already: say what it is to certify, --server NAME or --terminal ID"
        )
        .into());
    }
    if !server.is_empty() {
        let CertifiedFiles { certificate, key } = authority.certify_server(server, *days, *replace)?;
        let (certificate, key) = (certificate.display(), key.display());
        say(format_args!(
            "Certified the server as {}, for {days} days. On its machine, and {key} there alone:\n  atm-server serve --tls-cert {certificate} --tls-key {key} --tls-client-ca {ca} --listen ...",
            server.join(", ")
        ));
    }
    for &id in terminal {
        let CertifiedFiles { certificate, key } = authority.certify_terminal(id, *days, *replace)?;
        let (certificate, key) = (certificate.display(), key.display());
        say(format_args!(
            "Certified terminal {id}, for {days} days. On its machine, and {key} there alone:\n  atm-cli --terminal {id} --tls-ca {ca} --tls-cert {certificate} --tls-key {key} --server ..."
        ));
    }
    Ok(Ended::Done)
}
