//! The ratios as a picture: a bar from 1 to the median, a line from the least to the greatest, a mark at the goal.

use super::table::{Ratio, Table, short};

const WIDTH: f64 = 960.0;
const NAMES_WIDTH: f64 = 400.0;
const NUMBERS_WIDTH: f64 = 60.0;
const ROW_HEIGHT: f64 = 22.0;
const TOP: f64 = 48.0;

pub(super) fn svg(table: &Table) -> String {
    let values = table
        .ratios
        .iter()
        .flat_map(|it| [it.min, it.max, it.goal.unwrap_or(1.0)]);
    let values: Vec<f64> = values
        .filter(|value| value.is_finite() && *value > 0.0)
        .collect();
    let scale = Scale {
        least: values.iter().copied().fold(0.5, f64::min).log10(),
        greatest: values.iter().copied().fold(2.0, f64::max).log10(),
    };
    let height = TOP + ROW_HEIGHT * table.ratios.len() as f64 + 12.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"18\" font-size=\"14\">{}: ratio of ours to others, log scale, right of the line is better</text>\n",
        escape(&table.bench)
    );
    for (row, ratio) in table.ratios.iter().enumerate() {
        out += &bar(ratio, &scale, TOP + ROW_HEIGHT * row as f64);
    }
    let one = scale.x(1.0);
    out += &format!(
        "<line x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"{}\" y2=\"{:.1}\" stroke=\"#000\"/>\n</svg>\n",
        TOP - 8.0,
        height - 8.0
    );
    out
}

struct Scale {
    least: f64,
    greatest: f64,
}

impl Scale {
    fn x(&self, value: f64) -> f64 {
        let share = (value.log10() - self.least) / (self.greatest - self.least);
        NAMES_WIDTH + share.clamp(0.0, 1.0) * (WIDTH - NAMES_WIDTH - NUMBERS_WIDTH)
    }
}

fn bar(ratio: &Ratio, scale: &Scale, top: f64) -> String {
    let color = match ratio.met() {
        Some(false) => "#c8553d",
        Some(true) => "#3d7ea6",
        None => "#9aa5ab",
    };
    let (one, end) = (scale.x(1.0), scale.x(ratio.ratio));
    let (left, width) = (one.min(end), (one - end).abs());
    let (min, max) = (scale.x(ratio.min), scale.x(ratio.max));
    let (middle, base) = (top + 8.0, top + 12.0);
    let mut out = format!(
        "<text x=\"8\" y=\"{base:.1}\">{}</text>\n\
         <rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"16\" fill=\"{color}\"/>\n\
         <line x1=\"{min:.1}\" x2=\"{max:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"#222\"/>\n\
         <text x=\"{:.1}\" y=\"{base:.1}\">{}</text>\n",
        escape(&format!("{}, {}", ratio.work, ratio.against)),
        WIDTH - NUMBERS_WIDTH + 8.0,
        short(ratio.ratio),
    );
    if let Some(goal) = ratio.goal {
        let goal = scale.x(goal);
        out += &format!(
            "<line x1=\"{goal:.1}\" x2=\"{goal:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#080\" stroke-width=\"2\"/>\n",
            top - 2.0,
            top + 18.0
        );
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
