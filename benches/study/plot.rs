//! Line charts in SVG: panels side by side over one logarithmic axis of sizes.

use std::fmt::Write;

/// One chart.
pub(crate) struct Panel {
    title: String,
    y_label: &'static str,
    /// Whether the upright axis is logarithmic.
    pub(crate) is_log: bool,
    pub(crate) series: Vec<Series>,
}

/// One line; without a name it is left out of the legend.
pub(crate) struct Series {
    pub(crate) name: String,
    /// Number of its colour.
    pub(crate) color: usize,
    pub(crate) is_dashed: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Readable for colour-blind people (Okabe and Ito).
const COLORS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 310.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 48.0;

impl Panel {
    pub(crate) fn new(title: String, y_label: &'static str) -> Self {
        Self { title, y_label, is_log: false, series: Vec::new() }
    }

    fn scale(&self, y: f64) -> f64 {
        if self.is_log { y.max(1e-3).log10() } else { y }
    }

    /// The labelled values of the upright axis, from below all points to above.
    fn ticks(&self) -> Vec<f64> {
        let values = self.series.iter().flat_map(|series| &series.points).map(|(_, y)| *y);
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
        if low > high {
            return vec![0.0, 1.0];
        }
        if self.is_log {
            let (low, high) = (self.scale(low).floor() as i32, self.scale(high).ceil() as i32);
            return (low..=high.max(low + 1)).map(|power| 10f64.powi(power)).collect();
        }
        let step = nice((high - low).max(high.abs() / 100.0) / 5.0);
        let (from, to) = ((low / step).floor() as i64, (high / step).ceil() as i64);
        (from..=to.max(from + 1)).map(|n| n as f64 * step).collect()
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|n| *n >= step).unwrap_or(step)
}

/// The panels in a row.
pub(crate) fn draw(panels: &[Panel], x_label: &str) -> String {
    let width = WIDTH * panels.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    for (number, panel) in panels.iter().enumerate() {
        let _ = writeln!(out, "<g transform=\"translate({} 0)\">", number as f64 * WIDTH);
        panel_body(&mut out, panel, x_label);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn panel_body(out: &mut String, panel: &Panel, x_label: &str) {
    let ticks = panel.ticks();
    let (low, high) = (panel.scale(ticks[0]), panel.scale(ticks[ticks.len() - 1]));
    let mut sizes: Vec<f64> = panel.series.iter().flat_map(|series| &series.points).map(|(x, _)| *x).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let (first, last) = (sizes.first().copied().unwrap_or(1.0).log2(), sizes.last().copied().unwrap_or(2.0).log2());
    let x = |size: f64| LEFT + (size.log2() - first) / (last - first).max(1e-9) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| TOP + (high - panel.scale(value)) / (high - low) * (HEIGHT - TOP - BOTTOM);

    text(out, (WIDTH + LEFT) / 2.0, 16.0, "middle", &panel.title);
    text(out, (WIDTH + LEFT) / 2.0, HEIGHT - 12.0, "middle", x_label);
    let middle = (HEIGHT + TOP - BOTTOM) / 2.0;
    let _ = writeln!(out, "<text transform=\"translate(14 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>", panel.y_label);
    for tick in &ticks {
        let at = y(*tick);
        let _ = writeln!(out, "<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#ddd\"/>", WIDTH - RIGHT);
        text(out, LEFT - 6.0, at + 4.0, "end", &number(*tick));
    }
    for size in &sizes {
        let at = x(*size);
        let _ = writeln!(out, "<path d=\"M{at:.1} {TOP}V{}\" stroke=\"#eee\"/>", HEIGHT - BOTTOM);
        text(out, at, HEIGHT - BOTTOM + 16.0, "middle", &number(*size));
    }
    let mut legend_at = LEFT;
    for series in &panel.series {
        let color = COLORS[series.color % COLORS.len()];
        let dashes = if series.is_dashed { " stroke-dasharray=\"5 4\"" } else { "" };
        let points: Vec<String> = series.points.iter().map(|(size, value)| format!("{:.1},{:.1}", x(*size), y(*value))).collect();
        let _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"{dashes}/>", points.join(" "));
        if !series.name.is_empty() {
            let _ = writeln!(out, "<path d=\"M{legend_at:.1} {}h16\" stroke=\"{color}\" stroke-width=\"3\"/>", TOP - 12.0);
            text(out, legend_at + 20.0, TOP - 8.0, "start", &series.name);
            legend_at += 34.0 + 6.0 * series.name.len() as f64;
        }
    }
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
