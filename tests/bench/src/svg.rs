//! A picture of the table, for the README. Light and dark: the colours follow the reader's setting, the background
//! among them, so that it can be read wherever it is shown.

use std::fmt::Write;

use crate::results::{Line, Results, Section};
use crate::suite::Suite;
use crate::table::{cell, ratio};

const WIDTH: usize = 1000;
const HEIGHT: usize = 20;
const TOP: usize = 34;
/// Right edges of the columns of the three suites and of the two ratios.
const SUITES: [usize; 3] = [390, 500, 610];
const RATIOS: [usize; 2] = [690, 780];
/// Where the bars begin, and how wide the longest is.
const BARS: usize = 800;
const BAR: f64 = 180.0;

const STYLE: &str = "
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1f2328; }
.head { font-weight: bold; }
.end { text-anchor: end; }
text.faint { fill: #59636e; }
line { stroke: #d1d9e0; }
rect.back { fill: #ffffff; stroke: #d1d9e0; }
rect.floor { fill: #8b949e; }
rect.ours { fill: #0969da; }
rect.reference { fill: #d1d9e0; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  text.faint { fill: #9198a1; }
  line { stroke: #3d444d; }
  rect.back { fill: #0d1117; stroke: #3d444d; }
  rect.floor { fill: #9198a1; }
  rect.ours { fill: #4493f8; }
  rect.reference { fill: #3d444d; }
}
";

/// The picture. Sizes of single files are left out; the rest is what the table says.
pub fn render(results: &Results) -> String {
    let mut body = String::new();
    let mut y = TOP;
    let note = format!("medians and percentiles of {} repetitions; bars: share of the reference", results.repetitions);
    text(&mut body, 16, y, "head", "How long a pod's network takes");
    text(&mut body, WIDTH - 16, y, "faint end", &note);
    for section in Section::ALL {
        let lines: Vec<&Line> = results.section(section).collect();
        if section == Section::Size || lines.is_empty() {
            continue;
        }
        y += HEIGHT + HEIGHT / 2;
        heading(&mut body, y, section);
        for line in lines {
            y += HEIGHT;
            row(&mut body, y, line);
        }
    }
    y += HEIGHT;
    let mut picture = String::new();
    let _ = writeln!(
        picture,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">"#
    );
    let _ =
        writeln!(picture, "<title>How long a pod's network takes: the kernel's floor, ours and the reference</title>");
    let _ = writeln!(picture, "<style>{STYLE}</style>");
    let (width, height) = (WIDTH - 1, y - 1);
    let _ = writeln!(picture, r#"<rect class="back" x="0.5" y="0.5" width="{width}" height="{height}" rx="6"/>"#);
    let _ = writeln!(picture, "{body}</svg>");
    picture
}

fn heading(body: &mut String, y: usize, section: Section) {
    text(body, 16, y, "head", section.title());
    let high = section.high().map(|(_, name)| format!(" {name}")).unwrap_or_default();
    for (suite, right) in Suite::ALL.into_iter().zip(SUITES) {
        text(body, right, y, "faint end", &format!("{}{high}", suite.name()));
    }
    for (title, right) in ["/floor", "faster"].into_iter().zip(RATIOS) {
        text(body, right, y, "faint end", if section.is_time() { title } else { "" });
    }
    let below = y + 5;
    let _ = writeln!(body, r#"<line x1="16" x2="{}" y1="{below}" y2="{below}"/>"#, WIDTH - 16);
}

fn row(body: &mut String, y: usize, line: &Line) {
    text(body, 24, y, "", &line.row);
    for (suite, right) in Suite::ALL.into_iter().zip(SUITES) {
        text(body, right, y, "end", &cell(line, suite));
    }
    if line.section.is_time() {
        text(body, RATIOS[0], y, "end", &ratio(line, Suite::Ours, Suite::Floor));
        text(body, RATIOS[1], y, "end head", &ratio(line, Suite::Reference, Suite::Ours));
    }
    bars(body, y, line);
}

/// One over the other, the longest first: the reference's as wide as there is room, ours and the floor to scale.
fn bars(body: &mut String, y: usize, line: &Line) {
    let medians = Suite::ALL.map(|suite| line.cell(suite).median().unwrap_or_default());
    let most = medians.iter().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return;
    }
    let mut bars: Vec<_> = Suite::ALL.into_iter().zip(medians).collect();
    bars.sort_by(|one, other| other.1.total_cmp(&one.1));
    for (suite, median) in bars {
        let (top, width) = (y - 10, median / most * BAR);
        let class = suite.name();
        let _ = writeln!(body, r#"<rect class="{class}" x="{BARS}" y="{top}" width="{width:.1}" height="11"/>"#);
    }
}

fn text(body: &mut String, x: usize, y: usize, class: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(body, r#"<text x="{x}" y="{y}" class="{class}">{words}</text>"#);
}
