//! Progress of long work, shown to a person and to nobody else.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error with a rate and the time left; nothing if that is no terminal.
pub(crate) fn bar(what: &'static str, total: u64) -> ProgressBar {
    let style = "{msg:>10} {bar:30} {human_pos}/{human_len}  {per_sec:.0}  {eta} left";
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(style).expect("the template is well-formed"));
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
