//! What a disk holds, and what its calls do.

use std::io;

use super::chance::Chance;
use super::crash::Volatile;
use super::image::{Image, index};
use super::queue::{Call, Ticket};
use super::{Fault, SimDiskOptions, Step};

/// The number of kinds that are counted.
const STEPS: usize = 5;

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) options: SimDiskOptions,
    pub(super) chance: Chance,
    /// What reads see.
    visible: Image,
    /// What the last sync left.
    pub(super) durable: Image,
    /// What was written since.
    pending: Volatile,
    /// Submitted and not completed.
    pub(super) in_the_air: Vec<(Ticket, Call)>,
    pub(super) tickets: u64,
    armed: Vec<Armed>,
    met: u64,
    steps: [u64; STEPS],
    is_off: bool,
}

#[derive(Clone, Copy, Debug)]
struct Armed {
    step: Step,
    /// The count of steps at which it is met.
    at: u64,
    fault: Fault,
}

impl State {
    pub(super) fn new(options: SimDiskOptions, len: u64) -> Self {
        Self::on(options, Image::zeroed(len))
    }

    /// A disk on which all of `image` is durable.
    pub(super) fn on(options: SimDiskOptions, image: Image) -> Self {
        Self {
            chance: Chance::new(options.seed),
            options,
            visible: image.clone(),
            durable: image,
            pending: Volatile::default(),
            in_the_air: Vec::new(),
            tickets: 0,
            armed: Vec::new(),
            met: 0,
            steps: [0; STEPS],
            is_off: false,
        }
    }

    /// The first content.
    pub(super) fn fill(&mut self, bytes: &[u8]) {
        self.durable.write(0, bytes);
        self.visible = self.durable.clone();
    }

    pub(super) fn read(&mut self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let fault = self.step(Step::Read)?;
        self.aligned(offset, buf.len())?;
        let left = self.visible.len().saturating_sub(offset);
        let mut len = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match fault {
            Some(Fault::PowerOff) => return Err(self.power_off()),
            Some(Fault::Short) => len = self.shortened(len),
            Some(Fault::BitFlip) | None => {}
            Some(fault) => return Err(error(fault)),
        }
        let buf = &mut buf[..len];
        self.visible.read(offset, buf);
        if fault == Some(Fault::BitFlip) {
            self.flip_one(buf);
        }
        Ok(len)
    }

    pub(super) fn write(&mut self, data: &[u8], offset: u64) -> io::Result<usize> {
        let fault = self.step(Step::Write)?;
        self.aligned(offset, data.len())?;
        let capacity = self.options.capacity_bytes.unwrap_or(u64::MAX);
        let room = usize::try_from(capacity.saturating_sub(offset)).unwrap_or(usize::MAX);
        if room == 0 && !data.is_empty() {
            return Err(error(Fault::NoSpace));
        }
        let data = &data[..data.len().min(room)];
        match fault {
            None => self.land(data, offset),
            Some(Fault::PowerOff) => {
                self.land(data, offset);
                return Err(self.power_off());
            }
            Some(Fault::Short) => {
                let len = self.shortened(data.len());
                self.land(&data[..len], offset);
                return Ok(len);
            }
            Some(Fault::BitFlip) => {
                let mut data = data.to_vec();
                self.flip_one(&mut data);
                self.land(&data, offset);
            }
            Some(Fault::Lost) => {}
            Some(Fault::Misdirected) => {
                let elsewhere = self.elsewhere(data.len(), offset);
                self.land(data, elsewhere);
            }
            Some(fault) => return Err(error(fault)),
        }
        Ok(data.len())
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        match self.step(Step::Sync)? {
            None => {
                let pending = std::mem::take(&mut self.pending);
                self.durable.set_len(self.visible.len());
                for sector in pending.sectors() {
                    self.durable
                        .set_sector(sector, &self.visible.sector(sector));
                }
                Ok(())
            }
            Some(Fault::Lost) => Ok(()),
            Some(Fault::PowerOff) => Err(self.power_off()),
            Some(fault @ (Fault::Io | Fault::NoSpace)) => {
                self.forget();
                Err(error(fault))
            }
            Some(fault) => Err(error(fault)),
        }
    }

    /// Writes back part of what is volatile and takes the rest for written too, as the page cache does after an error.
    fn forget(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        for sector in pending.sectors() {
            if self.chance.coin() {
                self.durable
                    .set_sector(sector, &self.visible.sector(sector));
            } else if self.chance.coin() {
                // The page was thrown out, and is read from the medium the next time.
                self.visible
                    .set_sector(sector, &self.durable.sector(sector));
            }
        }
        // The length is metadata, and the journal will try again.
        self.pending.keep_lens_of(&pending);
    }

    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        let fault = self.step(Step::Grow)?;
        if len > self.options.capacity_bytes.unwrap_or(u64::MAX) {
            return Err(error(Fault::NoSpace));
        }
        match fault {
            None => self.resize(len),
            Some(Fault::PowerOff) => {
                self.resize(len);
                return Err(self.power_off());
            }
            Some(Fault::Lost) => {}
            Some(fault) => return Err(error(fault)),
        }
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.visible.len()
    }

    pub(super) fn is_off(&self) -> bool {
        self.is_off
    }

    fn resize(&mut self, len: u64) {
        if len != self.visible.len() {
            self.visible.set_len(len);
            self.pending.record_len(len);
        }
    }

    /// The write takes effect, volatile.
    fn land(&mut self, data: &[u8], offset: u64) {
        land(data, offset, &mut self.visible, &mut self.pending);
    }

    /// Everything that a loss of power may keep or not.
    pub(super) fn volatile(&self) -> Volatile {
        let mut volatile = self.pending.clone();
        if !self.is_off {
            self.add_in_the_air(&mut volatile);
        }
        volatile
    }

    fn add_in_the_air(&self, volatile: &mut Volatile) {
        let mut visible = self.visible.clone();
        for (_, call) in &self.in_the_air {
            if let Call::Write { offset, data } = call {
                land(data, *offset, &mut visible, volatile);
            }
        }
    }

    fn power_off(&mut self) -> io::Error {
        // What is in the air may have landed, and will get an error for an answer.
        let mut pending = std::mem::take(&mut self.pending);
        self.add_in_the_air(&mut pending);
        self.pending = pending;
        self.is_off = true;
        error(Fault::PowerOff)
    }

    pub(super) fn arm(&mut self, step: Step, nth: u64, fault: Fault) {
        let at = self.steps(step).saturating_add(nth);
        self.armed.push(Armed { step, at, fault });
    }

    pub(super) fn disarm(&mut self) -> u64 {
        self.armed.clear();
        self.options = SimDiskOptions {
            align_bytes: self.options.align_bytes,
            capacity_bytes: self.options.capacity_bytes,
            ..SimDiskOptions::new(self.options.seed)
        };
        std::mem::take(&mut self.met)
    }

    pub(super) fn steps(&self, step: Step) -> u64 {
        self.steps[place(step)]
    }

    /// Counts a call, and says what goes wrong with it.
    fn step(&mut self, step: Step) -> io::Result<Option<Fault>> {
        if self.is_off {
            return Err(error(Fault::PowerOff));
        }
        self.steps[place(Step::Any)] += 1;
        self.steps[place(step)] += 1;
        let steps = self.steps;
        let due = |armed: &Armed| {
            (armed.step == Step::Any || armed.step == step) && steps[place(armed.step)] == armed.at
        };
        if let Some(at) = self.armed.iter().position(due) {
            let fault = self.armed.swap_remove(at).fault;
            if can_have(step, fault) {
                self.met += 1;
                return Ok(Some(fault));
            }
        }
        Ok(self.by_chance(step))
    }

    fn by_chance(&mut self, step: Step) -> Option<Fault> {
        let options = &self.options;
        let mut chances = [
            (Fault::Short, options.short_per_mille),
            (Fault::Interrupted, options.interrupted_per_mille),
            (Fault::Io, options.io_error_per_mille),
            (Fault::NoSpace, 0),
            (Fault::BitFlip, 0),
            (Fault::Lost, 0),
            (Fault::Misdirected, 0),
        ];
        match step {
            Step::Any => return None,
            Step::Read => chances[4].1 = options.flip_on_read_per_mille,
            Step::Write => {
                chances[3].1 = options.no_space_per_mille;
                chances[4].1 = options.flip_on_write_per_mille;
                chances[5].1 = options.lost_write_per_mille;
                chances[6].1 = options.misdirected_write_per_mille;
            }
            Step::Sync => {
                chances = [(Fault::Short, 0); 7];
                chances[0] = (Fault::Io, options.sync_error_per_mille);
            }
            Step::Grow => {
                chances[0].1 = 0;
                chances[1].1 = 0;
                chances[3].1 = options.no_space_per_mille;
            }
        }
        let met = |(fault, chance): &(Fault, u16)| self.chance.per_mille(*chance).then_some(*fault);
        chances.iter().find_map(met)
    }

    fn aligned(&self, offset: u64, len: usize) -> io::Result<()> {
        let unit = self.options.align_bytes.max(1);
        let len = u64::try_from(len).expect("a length fits 64 bits");
        if offset.is_multiple_of(unit) && len.is_multiple_of(unit) {
            return Ok(());
        }
        Err(os_error(22, io::ErrorKind::InvalidInput))
    }

    /// Less than `len`, whole units of alignment, and at least one of them; `len` where there is no less.
    fn shortened(&mut self, len: usize) -> usize {
        let unit = index(self.options.align_bytes.max(1));
        let units = len / unit;
        if units < 2 {
            return len;
        }
        (1 + self.chance.index(units - 1)) * unit
    }

    /// Another place for a write: on the disk, where it is large enough.
    fn elsewhere(&mut self, len: usize, offset: u64) -> u64 {
        let unit = super::SECTOR_LEN_BYTES;
        let len = u64::try_from(len).expect("a length fits 64 bits");
        let places = self.visible.len().saturating_sub(len) / unit;
        let shift = offset % unit;
        let place = self.chance.below(places) * unit + shift;
        if place == offset {
            return if offset >= unit {
                offset - unit
            } else {
                offset + unit
            };
        }
        place
    }

    fn flip_one(&mut self, bytes: &mut [u8]) {
        let at = self.chance.index(bytes.len());
        let bit = self.chance.below(8);
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    pub(super) fn flip_bit(&mut self, offset: u64, bit: u32) {
        assert!(
            offset < self.visible.len() && bit < 8,
            "the disk has no bit {bit} at {offset}"
        );
        for image in [&mut self.visible, &mut self.durable] {
            if offset < image.len() {
                let mut byte = [0];
                image.read(offset, &mut byte);
                image.write(offset, &[byte[0] ^ (1 << bit)]);
            }
        }
    }

    pub(super) fn visible_bytes(&self) -> Vec<u8> {
        bytes(&self.visible)
    }

    pub(super) fn visible_chunks(
        &self,
        each: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        self.visible
            .chunks()
            .try_for_each(|(at, bytes)| each(at, bytes))
    }

    pub(super) fn durable_bytes(&self) -> Vec<u8> {
        bytes(&self.durable)
    }
}

fn land(data: &[u8], offset: u64, visible: &mut Image, pending: &mut Volatile) {
    if data.is_empty() {
        return;
    }
    let len = u64::try_from(data.len()).expect("a length fits 64 bits");
    let end = offset + len;
    pending.begin();
    if end > visible.len() {
        visible.set_len(end);
        pending.add_len(end);
    }
    visible.write(offset, data);
    let unit = super::SECTOR_LEN_BYTES;
    for sector in offset / unit..end.div_ceil(unit) {
        pending.add_sector(sector, visible.sector(sector));
    }
}

fn bytes(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0; index(image.len())];
    image.read(0, &mut bytes);
    bytes
}

fn place(step: Step) -> usize {
    match step {
        Step::Any => 0,
        Step::Read => 1,
        Step::Write => 2,
        Step::Sync => 3,
        Step::Grow => 4,
    }
}

/// Whether a call of that kind can go wrong in that way.
fn can_have(step: Step, fault: Fault) -> bool {
    match fault {
        Fault::Io | Fault::Interrupted | Fault::WouldBlock | Fault::PowerOff => true,
        Fault::NoSpace => matches!(step, Step::Write | Step::Grow | Step::Sync),
        Fault::Short | Fault::BitFlip => matches!(step, Step::Read | Step::Write),
        Fault::Lost => step != Step::Read,
        Fault::Misdirected => step == Step::Write,
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::NoSpace => os_error(28, io::ErrorKind::StorageFull),
        Fault::Interrupted => os_error(4, io::ErrorKind::Interrupted),
        Fault::WouldBlock => os_error(11, io::ErrorKind::WouldBlock),
        Fault::PowerOff => io::Error::other("the power is off"),
        _ => os_error(5, io::ErrorKind::Other),
    }
}

/// The error with the number that Linux gives to it, which stores may look at.
fn os_error(number: i32, kind: io::ErrorKind) -> io::Error {
    if cfg!(target_os = "linux") {
        io::Error::from_raw_os_error(number)
    } else {
        kind.into()
    }
}
