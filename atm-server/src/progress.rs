//! Progress of long work, shown to a person and to nobody else.

use bank_core::limits::PROGRESS_TICK;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// A bar on standard error with a rate and the time left; nothing if that is no terminal.
pub(crate) fn bar(what: &'static str, total: u64) -> ProgressBar {
    let style = "{msg} {wide_bar} {percent}% {rate} {eta} left";
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:.0}/s", state.per_sec());
    };
    bar.set_style(
        ProgressStyle::with_template(style)
            .expect("the template is well-formed")
            .with_key("rate", rate),
    );
    bar.set_message(what);
    bar.enable_steady_tick(PROGRESS_TICK);
    bar
}
