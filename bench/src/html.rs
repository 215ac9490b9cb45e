//! The report as one page that needs nothing else: the table, and plots as SVG.

use std::fmt::Write;

use crate::report::{GroupReport, Percentiles, Report};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 260.0;
const MARGIN: f64 = 56.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:820px;margin:2rem auto;padding:0 1rem;\
color:#222;background:#fff}pre{background:#f5f5f5;padding:1rem;overflow:auto}svg{width:100%;height:auto}\
text{font:12px system-ui,sans-serif;fill:#555}";

const COLOURS: [&str; 3] = ["#0b6", "#06c", "#c50"];

/// One line of a plot: what it shows and its points.
struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let title = format!("roomcast bench: {}", report.scenario);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style><h1>{0}</h1><pre>{1}</pre>",
        escape(&title),
        escape(&report.to_string())
    );
    for group in &report.groups {
        let _ = write!(
            page,
            "<h2>{}: latency by percentile</h2>{}",
            escape(&group.plan.name),
            latency_plot(group)
        );
    }
    let _ = write!(page, "<h2>Per second</h2>{}</html>", timeline_plot(report));
    page
}

fn latency_plot(group: &GroupReport) -> String {
    let named = [("ack", &group.ack), ("delivery", &group.delivery), ("last delivery", &group.last_delivery)];
    let lines: Vec<Line<'_>> = named
        .into_iter()
        .filter(|(_, latency)| latency.count > 0)
        .map(|(name, latency)| Line { name, points: curve(latency) })
        .collect();
    let marks =
        [(0.0, "0"), (10.0, "90 %"), (20.0, "99 %"), (30.0, "99.9 %"), (40.0, "99.99 %"), (50.0, "99.999 %")];
    plot(&lines, &marks, "ms")
}

fn curve(latency: &Percentiles) -> Vec<(f64, f64)> {
    latency.curve.iter().enumerate().map(|(point, us)| (point as f64, *us as f64 / 1000.0)).collect()
}

fn timeline_plot(report: &Report) -> String {
    let points = |count: fn(&crate::report::Second) -> u64| {
        report.timeline.iter().enumerate().map(|(at, second)| (at as f64, count(second) as f64)).collect()
    };
    let lines = [
        Line { name: "published", points: points(|second| second.published) },
        Line { name: "delivered", points: points(|second| second.delivered) },
    ];
    let last = report.timeline.len().saturating_sub(1);
    let label = format!("{last} s");
    plot(&lines, &[(0.0, "0 s"), (last as f64, &label)], "per second")
}

fn plot(lines: &[Line<'_>], marks: &[(f64, &str)], unit: &str) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let right = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let top = points().map(|(_, y)| *y).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| MARGIN + value / right * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| HEIGHT - MARGIN / 2.0 - value / top * (HEIGHT - MARGIN);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\">");
    for share in [0.0, 0.5, 1.0] {
        let (value, at) = (top * share, y(top * share));
        let _ = write!(
            svg,
            "<path d=\"M{MARGIN} {at:.1}H{}\" stroke=\"#ddd\"/><text x=\"4\" y=\"{:.1}\">{value:.4}</text>",
            WIDTH - MARGIN,
            at + 4.0
        );
    }
    for (at, label) in marks.iter().filter(|(at, _)| *at <= right) {
        let _ = write!(svg, "<text x=\"{:.1}\" y=\"{}\">{}</text>", x(*at), HEIGHT - 8.0, escape(label));
    }
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let path: Vec<String> =
            line.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/><text x=\"{}\" y=\"16\" style=\"fill:{colour}\">{}</text>",
            path.join(" "),
            MARGIN + 130.0 * number as f64,
            escape(line.name)
        );
    }
    let _ = write!(svg, "<text x=\"4\" y=\"16\">{}</text></svg>", escape(unit));
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
