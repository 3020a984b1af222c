//! A picture of the table, for the README. Light and dark: the colours follow the reader's setting, the background
//! among them, so that it can be read wherever it is shown.

use std::fmt::Write;

use crate::results::{Line, Results, Section};
use crate::suite::Suite;
use crate::table::{numbers, ratio};

const WIDTH: usize = 1000;
const HEIGHT: usize = 20;
const TOP: usize = 34;
/// Right edges of the columns: medians of the three suites, each with a percentile to its right; the two ratios.
const SUITES: [usize; 3] = [345, 455, 580];
const PERCENTILE: usize = 45;
const RATIOS: [usize; 2] = [725, 795];
/// Where the bars begin, and how wide the longest is.
const BARS: usize = 816;
const BAR: f64 = 168.0;

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

/// The picture: the table without the sections that say little in one.
pub fn render(results: &Results) -> String {
    let mut body = String::new();
    let mut y = TOP;
    text(&mut body, 16, y, "head", "How long a pod's network takes");
    let note = format!("{} repetitions by turns; ! some calls failed", results.repetitions);
    text(&mut body, BARS - 24, y, "faint end", &note);
    legend(&mut body, y);
    for section in Section::ALL.into_iter().filter(|section| ![Section::Size, Section::Tasks].contains(section)) {
        let lines: Vec<&Line> = results.section(section).collect();
        if lines.is_empty() {
            continue;
        }
        y += HEIGHT + HEIGHT / 2;
        heading(&mut body, y, section);
        for line in lines {
            y += HEIGHT;
            row(&mut body, y, line);
        }
    }
    frame(&body, y + HEIGHT)
}

fn frame(body: &str, height: usize) -> String {
    let mut picture = String::new();
    let size = format!(r#"viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}""#);
    let _ = writeln!(picture, r#"<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">"#);
    let _ = writeln!(picture, "<title>How long a pod's network takes: the kernel's floor, ours, the reference</title>");
    let _ = writeln!(picture, "<style>{STYLE}</style>");
    let (inner_width, inner_height) = (WIDTH - 1, height - 1);
    let _ = writeln!(
        picture,
        r#"<rect class="back" x="0.5" y="0.5" width="{inner_width}" height="{inner_height}" rx="6"/>"#
    );
    let _ = writeln!(picture, "{body}</svg>");
    picture
}

/// Which colour is whose, above the bars.
fn legend(body: &mut String, y: usize) {
    for (suite, x) in Suite::ALL.into_iter().zip([BARS - 4, BARS + 49, BARS + 94]) {
        bar(body, suite, x, y, 10.0);
        text(body, x + 13, y, "faint", suite.name());
    }
}

fn heading(body: &mut String, y: usize, section: Section) {
    text(body, 16, y, "head", section.title());
    for (suite, right) in Suite::ALL.into_iter().zip(SUITES) {
        text(body, right, y, "faint end", suite.name());
        if let Some((_, name)) = section.high() {
            text(body, right + PERCENTILE, y, "faint end", name);
        }
    }
    for (title, right) in ["over floor", "faster"].into_iter().zip(RATIOS).filter(|_| section.is_time()) {
        text(body, right, y, "faint end", title);
    }
    let below = y + 5;
    let _ = writeln!(body, r#"<line x1="16" x2="{}" y1="{below}" y2="{below}"/>"#, WIDTH - 16);
}

fn row(body: &mut String, y: usize, line: &Line) {
    text(body, 24, y, "", &line.row);
    for (suite, right) in Suite::ALL.into_iter().zip(SUITES) {
        let (median, high) = numbers(line, suite);
        let failed = if line.cell(suite).failures > 0 { "!" } else { "" };
        text(body, right, y, "end", &format!("{failed}{median}"));
        text(body, right + PERCENTILE, y, "faint end", &high);
    }
    if line.section.is_time() {
        text(body, RATIOS[0], y, "end", &ratio(line, Suite::Ours, Suite::Floor));
        text(body, RATIOS[1], y, "end head", &ratio(line, Suite::Reference, Suite::Ours));
    }
    bars(body, y, line);
}

/// One over the other, the longest first and as wide as there is room, the others to scale.
fn bars(body: &mut String, y: usize, line: &Line) {
    let medians = Suite::ALL.map(|suite| line.cell(suite).median().unwrap_or_default());
    let most = medians.iter().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return;
    }
    let mut bars: Vec<_> = Suite::ALL.into_iter().zip(medians).collect();
    bars.sort_by(|one, other| other.1.total_cmp(&one.1));
    for (suite, median) in bars {
        bar(body, suite, BARS, y, median / most * BAR);
    }
}

fn bar(body: &mut String, suite: Suite, x: usize, y: usize, width: f64) {
    let (class, top) = (suite.name(), y - 10);
    let _ = writeln!(body, r#"<rect class="{class}" x="{x}" y="{top}" width="{width:.1}" height="11"/>"#);
}

fn text(body: &mut String, x: usize, y: usize, class: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(body, r#"<text x="{x}" y="{y}" class="{class}">{words}</text>"#);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Programs;

    /// What is drawn is what was measured, and a name cannot break the picture.
    #[test]
    fn a_picture_of_one_row() {
        let programs = Programs { ours: "ours".into(), reference: "reference".into(), own: "own".into() };
        let mut results = Results::new(&programs);
        for (suite, time) in Suite::ALL.into_iter().zip([1.0, 2.0, 8.0]) {
            results.cell(Section::Add, "a < b & c", suite).push(time);
        }
        let picture = render(&results);
        assert!(picture.contains(">a &lt; b &amp; c</text>"), "{picture}");
        for number in ["1.00", "2.00", "8.00", "4.00"] {
            assert!(picture.contains(&format!(">{number}</text>")), "{number}: {picture}");
        }
        let bar = |class: &str, width: &str| {
            picture.contains(&format!(r#"class="{class}" x="{BARS}" y="74" width="{width}""#))
        };
        assert!(bar("floor", "21.0") && bar("ours", "42.0") && bar("reference", "168.0"), "{picture}");
        for tag in ["svg", "text", "style", "title"] {
            let (open, close) =
                (picture.matches(&format!("<{tag}")).count(), picture.matches(&format!("</{tag}>")).count());
            assert_eq!(open, close, "{tag}");
        }
    }
}
