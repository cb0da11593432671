//! A violation of linearizability as a picture: a lane for each client, a bar for each call.
//!
//! The horizontal axis is the order of the stamps and not their distance, for calls take nanoseconds and waits take
//! milliseconds. The longest order that fits is drawn as numbered moments, each inside its bar, joined by a line that
//! only goes to the right: that is what linearizable means, and the red bar is the call for which it cannot be done.

use std::collections::BTreeMap;

use larder_conformance::lin::{Place, Witness, WitnessCall};
use maud::{Markup, html};

/// All lengths are in pixels of the picture, which is shown at its own size and scrolled where the screen is smaller.
const LEFT: usize = 76;
const TOP: usize = 10;
const LANE_HEIGHT: usize = 58;
const BAR_HEIGHT: usize = 28;
const CHAR_WIDTH: usize = 8;
const GAP: usize = 22;
/// How far a moment keeps from the ends of its bar and from the moment before it.
const MOMENT_GAP: usize = 14;
/// Three lines below the lanes.
const TIP_HEIGHT: usize = 64;
/// What the words under the red bar need to either side of its middle.
const VERDICT_HALF: usize = 50;
/// Longer texts are cut in the bars; the tip and the list below have the whole.
const LABEL_CHARS_MAX: usize = 36;

/// For which screens a picture is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The bars carry their texts and are as long as these.
    Wide,
    /// The bars carry nothing, and the list below tells what they are.
    Narrow,
}

impl Shape {
    const fn class(self) -> &'static str {
        match self {
            Self::Wide => "scroll wide-only",
            Self::Narrow => "scroll narrow-only",
        }
    }

    const fn width_min(self) -> usize {
        match self {
            Self::Wide => 640,
            Self::Narrow => 320,
        }
    }

    /// How long a bar with this label is at least.
    fn need(self, label: &str) -> usize {
        match self {
            Self::Wide => (label.chars().count() + 2) * CHAR_WIDTH,
            Self::Narrow => GAP,
        }
    }
}

pub(super) fn render(witness: &Witness) -> Markup {
    html! {
        figure.timeline {
            figcaption { (about(witness)) }
            @for shape in [Shape::Wide, Shape::Narrow] {
                div class=(shape.class()) tabindex="0" role="region" aria-label="timeline, scrolls sideways" {
                    (Picture::of(witness, shape).svg())
                }
            }
            (explanation(witness))
        }
    }
}

fn about(witness: &Witness) -> String {
    let what = match (&witness.key, &witness.initially) {
        (Some(key), Some(row)) => format!("Key {key:?}, which held {row} at first"),
        (Some(key), None) => format!("Key {key:?}, absent at first"),
        (None, _) => "All keys as one object".to_owned(),
    };
    match witness.left_out {
        0 => format!("{what}. Time runs to the right, not to scale."),
        1 => format!(
            "{what}; one call that does not matter is left out. Time runs to the right, not to scale."
        ),
        count => format!(
            "{what}; {count} calls that do not matter are left out. Time runs to the right, not to scale."
        ),
    }
}

/// The same in words, for whom the picture is too small or cannot be seen.
fn explanation(witness: &Witness) -> Markup {
    let open: Vec<&WitnessCall> = witness
        .calls
        .iter()
        .filter(|call| call.place == Place::Open)
        .collect();
    html! {
        @if !witness.order().is_empty() {
            p { "The longest order that fits:" }
            ol.order {
                @for call in witness.order() {
                    li { (who(call)) ": " code { (text(call)) } }
                }
            }
        }
        @if let Some(call) = witness.impossible() {
            p.impossible { "The call that fits nowhere: " (who(call)) ": " code { (text(call)) } }
        }
        @if !open.is_empty() {
            p { "Still running or of unknown outcome, and in no place above:" }
            ul {
                @for call in open {
                    li { (who(call)) ": " code { (text(call)) } }
                }
            }
        }
    }
}

fn who(call: &WitnessCall) -> String {
    format!("client {}", call.client)
}

fn text(call: &WitnessCall) -> String {
    match call.result.as_deref() {
        None => format!("{} → no answer", call.op),
        Some(result) => format!("{} → {result}", call.op),
    }
}

/// Everything that is known of a call, for the tip and for screen readers.
fn whole(call: &WitnessCall) -> [String; 3] {
    let place = match call.place {
        Place::Order(at) => format!("place {at} in the order"),
        Place::Impossible => "fits nowhere".to_owned(),
        _ => "in no place".to_owned(),
    };
    let stamps = match call.ret {
        Some(ret) => format!("from {} to {ret}", call.call),
        None => format!("from {}, never returned", call.call),
    };
    [
        format!("{}: {}", who(call), text(call)),
        format!("{place}; call {} of the epoch", call.line),
        stamps,
    ]
}

fn label(call: &WitnessCall) -> String {
    let text = text(call);
    match text.char_indices().nth(LABEL_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

pub(super) struct Bar<'a> {
    pub(super) call: &'a WitnessCall,
    label: String,
    pub(super) from: usize,
    /// Where it ends, and whether that is because an answer came.
    pub(super) to: usize,
    answered: bool,
    pub(super) lane: usize,
}

pub(super) struct Picture<'a> {
    shape: Shape,
    pub(super) bars: Vec<Bar<'a>>,
    /// The client of each lane. One with several calls at once has several lanes.
    lanes: Vec<u32>,
    pub(super) width: usize,
}

fn ended(call: &WitnessCall) -> Option<u64> {
    call.ret.filter(|_| call.result.is_some())
}

impl<'a> Picture<'a> {
    pub(super) fn of(witness: &'a Witness, shape: Shape) -> Self {
        let calls = &witness.calls;
        let labels: Vec<String> = calls.iter().map(label).collect();
        let (columns, width) = columns(calls, &labels, shape);
        let mut bars: Vec<Bar<'_>> = Vec::new();
        for (call, label) in calls.iter().zip(labels) {
            let end = ended(call).map(|ret| columns[&(ret, true)]);
            bars.push(Bar {
                call,
                label,
                from: columns[&(call.call, false)],
                to: end.unwrap_or(width - 8),
                answered: end.is_some(),
                lane: 0,
            });
        }
        let lanes = assign_lanes(&mut bars);
        Self {
            shape,
            bars,
            lanes,
            width,
        }
    }

    /// The moments of the longest order: each inside its bar, none before the one that precedes it. Such moments exist,
    /// because no call of an order returned before one that precedes it began.
    pub(super) fn moments(&self) -> Vec<(usize, usize)> {
        let mut order: Vec<&Bar<'_>> = self
            .bars
            .iter()
            .filter(|bar| matches!(bar.call.place, Place::Order(_)))
            .collect();
        order.sort_by_key(|bar| bar.call.place);
        let mut moments: Vec<usize> = Vec::new();
        for bar in &order {
            let earliest = moments.last().map_or(0, |before| before + MOMENT_GAP);
            moments.push(earliest.max(bar.from + MOMENT_GAP));
        }
        let mut latest = usize::MAX;
        for (moment, bar) in moments.iter_mut().zip(&order).rev() {
            latest = latest.min(bar.to.saturating_sub(MOMENT_GAP / 2));
            *moment = latest.min(*moment);
        }
        moments
            .into_iter()
            .zip(order)
            .map(|(x, bar)| (x, top_of(bar.lane) + BAR_HEIGHT))
            .collect()
    }

    fn svg(&self) -> Markup {
        let height = top_of(self.lanes.len()) + TIP_HEIGHT;
        let moments = self.moments();
        let path: Vec<String> = moments.iter().map(|(x, y)| format!("{x},{y}")).collect();
        html! {
            svg xmlns="http://www.w3.org/2000/svg" role="list" aria-label="the calls, by the time they were made"
                width=(self.width) height=(height) viewBox=(format!("0 0 {} {height}", self.width)) {
                @for (lane, client) in self.lanes.iter().enumerate() {
                    @let y = top_of(lane) + BAR_HEIGHT / 2;
                    line.lane x1=(LEFT - 8) y1=(y) x2=(self.width) y2=(y) {}
                    text.client x="0" y=(y + 5) { "client " (client) }
                }
                polyline.order points=(path.join(" ")) {}
                text.hint x="0" y=(height - 44) { "Point at a call, or focus it, to read it." }
                @for bar in &self.bars { (bar.svg(self.shape, self.width, height)) }
                @for (at, (x, y)) in moments.iter().enumerate() {
                    g.moment aria-hidden="true" {
                        circle cx=(x) cy=(y) r="9" {}
                        text x=(x) y=(y + 4) { (at + 1) }
                    }
                }
            }
        }
    }
}

impl Bar<'_> {
    fn svg(&self, shape: Shape, width: usize, height: usize) -> Markup {
        let told = whole(self.call);
        let y = top_of(self.lane);
        let class = match (self.call.place, self.answered) {
            (Place::Impossible, _) => "call impossible",
            (_, false) => "call unanswered",
            (Place::Order(_), true) => "call placed",
            _ => "call",
        };
        html! {
            g class=(class) role="listitem" tabindex="0" aria-label=(told.join("; ")) {
                title { (told.join("\n")) }
                rect.bar x=(self.from) y=(y) width=(self.to - self.from) height=(BAR_HEIGHT) rx="5" {}
                @if shape == Shape::Wide {
                    text.label x=((self.from + self.to) / 2) y=(y + 18) { (self.label) }
                }
                @if self.call.place == Place::Impossible {
                    text.verdict x=((self.from + self.to) / 2) y=(y + BAR_HEIGHT + 16) { "fits nowhere" }
                }
                g.tip {
                    rect.cover x="0" y=(height - TIP_HEIGHT + 4) width=(width) height=(TIP_HEIGHT - 4) {}
                    @for (line, told) in told.iter().enumerate() {
                        text x="0" y=(height - 44 + 19 * line) { (told) }
                    }
                }
            }
        }
    }
}

fn top_of(lane: usize) -> usize {
    TOP + lane * LANE_HEIGHT
}

/// Gives every bar a lane of its client that is free at its time; answers whose lane is whose.
fn assign_lanes(bars: &mut [Bar<'_>]) -> Vec<u32> {
    // The lanes as client, running number among the client's own, and where the last bar ends.
    let mut lanes: BTreeMap<(u32, usize), usize> = BTreeMap::new();
    let mut of_bar = Vec::new();
    for bar in bars.iter() {
        let client = bar.call.client;
        let own = lanes.range((client, 0)..=(client, usize::MAX));
        let free = own.clone().find(|(_, end)| **end < bar.from);
        let lane = free.map_or((client, own.count()), |(lane, _)| *lane);
        let end = if bar.answered { bar.to } else { usize::MAX };
        lanes.insert(lane, end);
        of_bar.push(lane);
    }
    for (bar, lane) in bars.iter_mut().zip(of_bar) {
        bar.lane = lanes.keys().take_while(|known| **known != lane).count();
    }
    lanes.into_keys().map(|(client, _)| client).collect()
}

/// Where each stamp is drawn, calls before returns where the two are equal, because such calls overlap; and the width of
/// the picture. Columns are as far apart as the labels between them need.
fn columns(
    calls: &[WitnessCall],
    labels: &[String],
    shape: Shape,
) -> (BTreeMap<(u64, bool), usize>, usize) {
    let mut columns: BTreeMap<(u64, bool), usize> = BTreeMap::new();
    for call in calls {
        columns.insert((call.call, false), 0);
        if let Some(ret) = ended(call) {
            columns.insert((ret, true), 0);
        }
    }
    let stamps: Vec<(u64, bool)> = columns.keys().copied().collect();
    let (mut column, mut width) = (LEFT, shape.width_min());
    // Few stamps share the whole width of a narrow screen.
    let gap = match shape {
        Shape::Wide => GAP,
        Shape::Narrow => GAP.max((width - LEFT - VERDICT_HALF) / stamps.len().max(1)),
    };
    for stamp in stamps {
        for (call, label) in calls.iter().zip(labels) {
            if ended(call).is_some_and(|ret| (ret, true) == stamp) {
                column = column.max(columns[&(call.call, false)] + shape.need(label));
            }
        }
        columns.insert(stamp, column);
        width = width.max(column + VERDICT_HALF);
        column += gap;
    }
    for (call, label) in calls.iter().zip(labels) {
        width = width.max(columns[&(call.call, false)] + shape.need(label) + GAP);
    }
    (columns, width)
}
