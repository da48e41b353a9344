//! Displays of Python programs: figures, tables and other objects with a rich form arrive in order
//! and within their caps.

use sandhog_protocol::frames::{DisplayCaps, DisplayPart, ProgramEnd};

use crate::cell_fixture::{CellFixture, RunResult};

/// First line of a program that draws.
const PLOT: &str = "import matplotlib.pyplot as plt\n";

/// A class whose objects have every rich form.
const RICH: &str = "
class Rich:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {'application/vnd.plotly.v1+json': {'data': [1, float('nan')]}}, {'meta': 1}
    def _repr_html_(self): return '<b>é</b>'
    def _repr_markdown_(self): return '**m**'
    def _repr_svg_(self): return '<svg/>'
    def _repr_png_(self): return b'\\x89PNG', {'width': 1}
    def _repr_latex_(self): return '$x$'
    def _repr_json_(self): return {'a': [1]}
    def _repr_pdf_(self): return None
    def __repr__(self): return 'Rich'
";

async fn cells(test: &str) -> CellFixture {
    let mut cells = CellFixture::of("datascience", test).await;
    cells.caps.cell.memory_bytes = 512 << 20;
    cells
}

fn part<'a>(parts: &'a [DisplayPart], mime: &str) -> &'a [u8] {
    let found = parts.iter().find(|part| part.mime == mime);
    &found
        .unwrap_or_else(|| panic!("no {mime} in {parts:.200?}"))
        .data
}

fn plain(ran: &RunResult) -> Vec<String> {
    ran.report
        .displays
        .iter()
        .map(|parts| String::from_utf8_lossy(part(parts, "text/plain")).into_owned())
        .collect()
}

/// Checks that the parts hold a complete PNG, and returns its width and height.
fn size_of_picture(parts: &[DisplayPart]) -> (u32, u32) {
    let png = part(parts, "image/png");
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "{:?}", &png[..16]);
    assert!(png.ends_with(b"IEND\xaeB`\x82"), "it is whole");
    let number = |at: usize| {
        let bytes = png[at..].first_chunk::<4>();
        u32::from_be_bytes(*bytes.expect("a PNG begins with its size"))
    };
    (number(16), number(20))
}

#[tokio::test]
async fn figures_show_up_without_being_saved() {
    let mut cells = cells("figures").await;
    let figure = "<Figure size 640x480 with 1 Axes>";
    for (case, source, want) in [
        ("left open", "plt.plot([1, 2])", vec![figure]),
        ("none drawn", "1", vec![]),
        ("an empty one", "plt.figure()", vec![]),
        (
            "saved and closed",
            "plt.plot([1])\nplt.savefig('a.png')\nplt.close()",
            vec![],
        ),
        (
            "two shown, one left, in order",
            "plt.plot([1])\nplt.show()\nassert not plt.get_fignums()\n\
             plt.subplots(1, 2)\nplt.show()\nplt.subplots(1, 3)",
            vec![
                figure,
                "<Figure size 640x480 with 2 Axes>",
                "<Figure size 640x480 with 3 Axes>",
            ],
        ),
        (
            "two at once, by their numbers",
            "plt.subplots(1, 1, num=5)\nplt.subplots(1, 2, num=3)\nplt.show()",
            vec!["<Figure size 640x480 with 2 Axes>", figure],
        ),
        ("as the value", "plt.plot([1])\nplt.gcf()", vec![figure]),
        (
            "as main's value",
            "def main():\n    plt.plot([1])\n    return plt.gcf()",
            vec![figure],
        ),
        (
            "displayed",
            "plt.plot([1])\ndisplay(plt.gcf())",
            vec![figure],
        ),
        (
            "displayed, and drawn on since",
            "plt.plot([1])\ndisplay(plt.gcf())\nplt.plot([2])",
            vec![figure, figure],
        ),
        (
            "with a back end chosen",
            "plt.switch_backend('agg')\nplt.plot([1])\nplt.show()",
            vec![figure],
        ),
        ("before a failure", "plt.plot([1])\n1 / 0", vec![figure]),
        (
            "before an exit",
            "plt.plot([1])\nraise SystemExit(0)",
            vec![figure],
        ),
    ] {
        let ran = cells.python(&format!("{PLOT}{source}")).await;
        assert_eq!(plain(&ran), want, "{case}: {ran:.2000?}");
        assert_eq!(ran.report.displays_dropped, 0, "{case}");
        for parts in &ran.report.displays {
            let (width, height) = size_of_picture(parts);
            assert!(
                (300..800).contains(&width) && (300..600).contains(&height),
                "{case}"
            );
        }
        if !case.starts_with("before") {
            assert_eq!(ran.stderr_text(), "", "{case}");
        }
    }
    let cold = cells
        .python_cold(&format!("{PLOT}plt.plot([1])\nplt.show()\nplt.plot([2])"))
        .await;
    assert_eq!(plain(&cold), [figure, figure], "{cold:.2000?}");
    cells.end().await;
}

#[tokio::test]
async fn things_are_shown_in_all_their_forms() {
    let mut cells = cells("forms").await;
    let ran = cells
        .python(&format!("{RICH}display(Rich())\nRich()"))
        .await;
    assert_eq!(ran.report.end, ProgramEnd::Exited(0), "{ran:?}");
    assert_eq!(ran.report.displays.len(), 2, "{ran:?}");
    for parts in &ran.report.displays {
        for (mime, want) in [
            ("application/vnd.plotly.v1+json", r#"{"data":[1,null]}"#),
            ("text/html", "<b>é</b>"),
            ("text/markdown", "**m**"),
            ("image/svg+xml", "<svg/>"),
            ("text/latex", "$x$"),
            ("application/json", r#"{"a":[1]}"#),
            ("text/plain", "Rich"),
        ] {
            assert_eq!(String::from_utf8_lossy(part(parts, mime)), want, "{mime}");
        }
        assert_eq!(part(parts, "image/png"), b"\x89PNG");
        assert_eq!(parts.len(), 8, "{parts:?}");
    }
    for (case, source, want) in [
        (
            "several, in order",
            "display(1, 'a', [2])",
            vec!["1", "'a'", "[2]"],
        ),
        ("nothing", "display()", vec![]),
        ("a plain value", "[1, 2]", vec![]),
        ("an object with no form", "class A: pass\nA()", vec![]),
        (
            "a class",
            "class A:\n    def _repr_html_(self): return ''\nA",
            vec![],
        ),
        (
            "a mock",
            "import unittest.mock\nunittest.mock.MagicMock()",
            vec![],
        ),
        ("an array", "import numpy\nnumpy.arange(3)", vec![]),
        (
            "a table",
            "import pandas\npandas.DataFrame({'a': [1]})",
            vec!["   a\n0  1"],
        ),
        (
            "main's table",
            "import pandas\ndef main():\n    return pandas.DataFrame({'a': [1]})",
            vec!["   a\n0  1"],
        ),
    ] {
        let ran = cells.python(source).await;
        assert_eq!(plain(&ran), want, "{case}: {ran:?}");
        for parts in &ran.report.displays {
            if case.ends_with("table") {
                let html = String::from_utf8_lossy(part(parts, "text/html")).into_owned();
                assert!(
                    html.contains("<table") && html.contains("<td>1</td>"),
                    "{html}"
                );
            }
        }
    }
    let only = cells
        .python(&format!(
            "{RICH}display(Rich(), include=['text/html'])\n\
             display({{'image/png': 'iVBORw=='}}, raw=True)"
        ))
        .await;
    let mimes: Vec<&str> = only
        .report
        .displays
        .iter()
        .flatten()
        .map(|part| part.mime.as_str())
        .collect();
    assert_eq!(mimes, ["text/html", "image/png"], "{only:?}");
    assert_eq!(part(&only.report.displays[1], "image/png"), b"\x89PNG");
    cells.end().await;
}

#[tokio::test]
async fn what_is_above_a_cap_is_dropped_and_fails_nothing() {
    let mut cells = CellFixture::new("display-caps").await;
    cells.displays = DisplayCaps {
        count: 3,
        bytes: 1000,
        total_bytes: 1500,
    };
    for (case, source, kept, dropped) in [
        ("too many", "for i in range(5): display(i)\n7", 3, 2),
        ("one too long", "display('x' * 1000, 1)\n7", 1, 1),
        (
            "too much in all",
            "for i in range(3): display('x' * 600)\n7",
            2,
            1,
        ),
        (
            "longer than any job may have",
            "display('x' * (9 << 20), 1)\n7",
            1,
            1,
        ),
    ] {
        let ran = cells.python(source).await;
        assert_eq!(ran.report.displays.len(), kept, "{case}: {ran:?}");
        assert_eq!(ran.report.displays_dropped, dropped, "{case}");
        assert_eq!(
            (ran.value(), ran.report.end),
            (Some("7"), ProgramEnd::Exited(0)),
            "{case}"
        );
    }
    cells.displays = DisplayCaps::default();
    let none = cells.python("display(1)\n7").await;
    assert_eq!(
        (none.report.displays.len(), none.report.displays_dropped),
        (0, 1)
    );
    cells.end().await;
}

#[tokio::test]
async fn a_program_that_shows_nothing_loads_nothing_for_it() {
    let mut cells = CellFixture::new("display-cost").await;
    let source = "import sys\nplace = display.__globals__\n\
                  ['displays' not in place['loaded'], [name for name in sys.modules if 'displays' \
                  in name]]";
    let ran = cells.python_cold(source).await;
    assert_eq!(ran.value(), Some("[true,[]]"), "{ran:?}");
    // A program may have its own module of this name.
    let own = "open('displays.py', 'w').write('x = 8')\nimport displays\ndisplay(1)\ndisplays.x";
    for ran in [cells.python(own).await, cells.python_cold(own).await] {
        assert_eq!(
            (ran.value(), ran.report.displays.len()),
            (Some("8"), 1),
            "{ran:?}"
        );
    }
    cells.end().await;
}
