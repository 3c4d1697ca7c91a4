//! The memory of a process that has PINs and keys in it, which nobody else is to look into.

use std::io;

/// Has the operating system write no core dump of this process, and let no other process of the same user look into its
/// memory: there are PINs and keys in it. (A limit on the size of core dumps would not do: Linux does not apply it to
/// those that a program like systemd-coredump takes.)
///
/// # Errors
/// As the operating system says.
pub fn hide() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{DumpableBehavior, dumpable_behavior};

    use super::*;

    #[test]
    fn memory_is_hidden() {
        hide().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
