//! One picture of a load: throughput over time, and latency by percentile.
//!
//! It is for a report: it names what was measured, its axes have units, and it needs no colours. The percentiles' axis is that of
//! HdrHistogram's plots: each further nine has the same room. Texts are SVG texts, so no fonts are needed to draw it.

use std::array::IntoIter;
use std::error::Error;
use std::ops::Range;

use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::load::{Load, Measured, us};
use super::run::grouped;

const SIZE: (u32, u32) = (1000, 860);
const FONT: &str = "Helvetica, Arial, sans-serif";
const GREY: RGBColor = RGBColor(110, 110, 110);
const LIGHT: RGBColor = RGBColor(225, 225, 225);
const FILL: RGBColor = RGBColor(238, 238, 238);

/// The percentiles that have a tick, as far as there are answers enough for them.
const TICKS: [f64; 8] = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws what was measured, under a line that says what it was.
///
/// # Errors
/// If it cannot be drawn.
pub(super) fn svg(load: &Load, headline: &str, measured: &Measured) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let (title, rest) = area.split_vertically(78);
        let middle = Pos::new(HPos::Center, VPos::Center);
        let centre = SIZE.0 as i32 / 2;
        let bold = (FONT, 19).into_font().style(FontStyle::Bold);
        title.draw(&Text::new(
            headline.to_owned(),
            (centre, 30),
            bold.color(&BLACK).pos(middle),
        ))?;
        let figures = format!(
            "{} answers/s; latency p50 {}, p99 {}, p99.9 {}{}",
            grouped(measured.per_second()),
            duration(measured.latency_us(50.0)),
            duration(measured.latency_us(99.0)),
            duration(measured.latency_us(99.9)),
            match &measured.open {
                Some(open) if open.unsent > 0 => format!("; {} never sent", grouped(open.unsent as f64)),
                _ => String::new(),
            }
        );
        title.draw(&Text::new(
            figures,
            (centre, 60),
            (FONT, 17).into_font().color(&GREY).pos(middle),
        ))?;
        let (upper, lower) = rest.split_vertically(350);
        throughput(&upper, load, measured)?;
        latency(&lower, measured)?;
        area.present()?;
    }
    Ok(svg)
}

fn throughput(panel: &Panel<'_>, load: &Load, measured: &Measured) -> Result<(), Box<dyn Error>> {
    let offered = measured.open.as_ref().map(|open| open.offered);
    // Stairs, since a step's rate is that of the whole step.
    let stairs: Vec<(f64, f64)> = measured
        .steps
        .iter()
        .flat_map(|step| {
            [step.from, step.to].map(|time| ((time - load.warm_up).as_secs_f64(), step.per_second()))
        })
        .collect();
    let end = stairs.last().map_or(1.0, |&(time, _)| time);
    let most = stairs.iter().map(|&(_, rate)| rate).fold(0.0, f64::max);
    let most = most.max(offered.unwrap_or(0.0)).max(1.0) * 1.15;
    let mut chart = ChartBuilder::on(panel)
        .margin(12)
        .margin_right(40)
        .x_label_area_size(52)
        .y_label_area_size(96)
        .build_cartesian_2d(0.0..end, 0.0..most)?;
    chart
        .configure_mesh()
        .x_desc("time, seconds")
        .y_desc("throughput, answers per second")
        .x_labels(10)
        .y_labels(6)
        .x_label_formatter(&|time| format!("{}", (time * 100.0).round() / 100.0))
        .y_label_formatter(&|&rate| grouped(rate))
        .light_line_style(TRANSPARENT)
        .bold_line_style(LIGHT)
        .axis_style(BLACK)
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 16))
        .draw()?;
    chart.draw_series(AreaSeries::new(stairs.iter().copied(), 0.0, FILL))?;
    chart.draw_series(LineSeries::new(stairs, BLACK.stroke_width(2)))?;
    if let Some(offered) = offered {
        let line = [(0.0, offered), (end, offered)];
        chart
            .draw_series(DashedLineSeries::new(line, 8, 5, GREY.stroke_width(2)))?
            .label(format!("requests due: {} per second", grouped(offered)))
            .legend(|at| dashes(at, GREY));
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE)
            .border_style(GREY)
            .label_font((FONT, 15))
            .draw()?;
    }
    Ok(())
}

fn latency(panel: &Panel<'_>, measured: &Measured) -> Result<(), Box<dyn Error>> {
    let end = place((1.0 - 1.0 / measured.answers.max(100) as f64) * 100.0).min(6.0);
    let answers = curve(&measured.latency, end);
    let late = measured.open.as_ref().map(|open| curve(&open.lateness, end));
    let all = || answers.iter().chain(late.iter().flatten()).map(|&(_, y)| y);
    let (least, most) = (
        all().fold(f64::MAX, f64::min).min(5.0),
        all().fold(f64::MIN, f64::max).max(0.0),
    );
    let x_ticks = TICKS.map(place).into_iter().filter(|&x| x <= end).collect();
    // In a range of a few powers of ten, also 2 and 5 of each have a tick.
    let between: &[f64] = if most - least < 3.5 {
        &[1.0, 2.0, 5.0]
    } else {
        &[1.0]
    };
    let y_ticks = (least.floor() as i32..=most.ceil() as i32)
        .flat_map(|power| between.iter().map(move |times| f64::from(power) + times.log10()))
        .collect();
    let room = (most - least).max(0.3) * 0.12;
    let mut chart = ChartBuilder::on(panel)
        .margin(12)
        .margin_right(40)
        .x_label_area_size(52)
        .y_label_area_size(96)
        .build_cartesian_2d(
            Axis {
                line: (0.0..end).into(),
                ticks: x_ticks,
                label: percent,
            },
            Axis {
                line: (least - room..most + room).into(),
                ticks: y_ticks,
                label: |power| duration(10f64.powf(power)),
            },
        )?;
    chart
        .configure_mesh()
        .x_desc("percentile of answers")
        .y_desc("latency")
        .x_labels(TICKS.len())
        .y_labels(30)
        .light_line_style(TRANSPARENT)
        .bold_line_style(LIGHT)
        .axis_style(BLACK)
        .label_style((FONT, 15))
        .axis_desc_style((FONT, 16))
        .draw()?;
    let name = match measured.open {
        Some(_) => "from when a request was due to its answer",
        None => "from sending a request to its answer",
    };
    chart
        .draw_series(LineSeries::new(answers, BLACK.stroke_width(2)))?
        .label(name)
        .legend(|(x, y)| PathElement::new([(x, y), (x + 26, y)], BLACK.stroke_width(2)));
    if let Some(late) = late {
        chart
            .draw_series(DashedLineSeries::new(late, 8, 5, GREY.stroke_width(2)))?
            .label("of that, sent late")
            .legend(|at| dashes(at, GREY));
    }
    let style = (FONT, 15)
        .into_font()
        .color(&BLACK)
        .pos(Pos::new(HPos::Right, VPos::Bottom));
    chart.draw_series(
        TICKS[1..]
            .iter()
            .filter(|&&tick| place(tick) <= end)
            .map(|&tick| {
                let us = measured.latency_us(tick);
                EmptyElement::at((place(tick), us.max(1.0).log10()))
                    + Circle::new((0, 0), 4, BLACK.filled())
                    + Text::new(duration(us), (-5, -6), style.clone())
            }),
    )?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(GREY)
        .label_font((FONT, 15))
        .draw()?;
    Ok(())
}

fn dashes((x, y): (i32, i32), colour: RGBColor) -> DashedPathElement<IntoIter<(i32, i32), 2>, i32> {
    DashedPathElement::new([(x, y), (x + 26, y)], 8, 5, colour.stroke_width(2))
}

/// An axis with ticks at given places, and words for each.
struct Axis {
    line: RangedCoordf64,
    ticks: Vec<f64>,
    label: fn(f64) -> String,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.line.map(value, limit)
    }

    fn key_points<H: KeyPointHint>(&self, _: H) -> Vec<f64> {
        let range = self.range();
        let ticks = self.ticks.iter().copied();
        ticks
            .filter(|&tick| range.start <= tick && tick <= range.end)
            .collect()
    }

    fn range(&self) -> Range<f64> {
        self.line.range()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        value.to_string()
    }

    fn format_ext(&self, value: &f64) -> String {
        (self.label)(*value)
    }
}

/// Where a percentile is on its axis: how many nines it has.
fn place(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

/// The inverse of [`place`], in words.
fn percent(place: f64) -> String {
    let percentile = 100.0 - 100.0 * 10f64.powf(-place);
    format!("{}%", (percentile * 1e6).round() / 1e6)
}

/// The latency by percentile, as (place, power of ten of microseconds).
fn curve(histogram: &Histogram<u64>, end: f64) -> Vec<(f64, f64)> {
    const POINTS: u32 = 600;
    (0..=POINTS)
        .map(|n| {
            let x = end * f64::from(n) / f64::from(POINTS);
            let percentile = 100.0 - 100.0 * 10f64.powf(-x);
            // What is less is nothing, on a network, and of nothing there is no logarithm.
            (x, us(histogram, percentile).max(1.0).log10())
        })
        .collect()
}

/// A number of microseconds, in the unit that suits it, to three digits.
fn duration(us: f64) -> String {
    let (number, unit) = match us {
        1e6.. => (us / 1e6, "s"),
        1e3.. => (us / 1e3, "ms"),
        _ => (us, "µs"),
    };
    let digits = (2 - number.max(1e-3).log10().floor() as i32).clamp(0, 2);
    let text = format!("{number:.*}", digits as usize);
    let text = if digits > 0 {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_where_and_what_they_should_be() {
        for (percentile, expected, words) in [
            (0.0, 0.0, "0%"),
            (50.0, 0.301, "50%"),
            (90.0, 1.0, "90%"),
            (99.0, 2.0, "99%"),
            (99.999, 5.0, "99.999%"),
        ] {
            assert!((place(percentile) - expected).abs() < 0.001, "{percentile}");
            assert_eq!(percent(place(percentile)), words);
        }
    }

    #[test]
    fn durations_have_three_digits_and_their_unit() {
        for (us, words) in [
            (0.5, "0.5 µs"),
            (12.34, "12.3 µs"),
            (999.4, "999 µs"),
            (1000.0, "1 ms"),
            (123_456.0, "123 ms"),
            (2_500_000.0, "2.5 s"),
            (60_000_000.0, "60 s"),
        ] {
            assert_eq!(duration(us), words);
        }
    }
}
