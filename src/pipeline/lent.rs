//! Pictures that sinks look at, on their way back to the decoder.

use crate::frame::Picture;
use crate::preprocess::decode::Decoder;
use std::sync::Arc;

/// Pictures that somebody may still hold. A sink lets go of one when it has taken up the next,
/// a moment after that was published: so one is asked for not once, but until it is free. Fresh
/// memory for every picture would cost some 2 ms at 1280×720.
#[derive(Default)]
pub(super) struct Lent(Vec<Arc<Picture>>);

impl Lent {
    /// Slow sinks each hold one; what is held beyond this is theirs to free.
    const MOST: usize = 4;

    /// Takes note of `picture`, and gives `decoder` what nobody holds any more.
    pub fn lend(&mut self, picture: Arc<Picture>, decoder: &mut Decoder) {
        self.0.push(picture);
        for picture in std::mem::take(&mut self.0) {
            match Arc::try_unwrap(picture) {
                Ok(free) => decoder.recycle(free),
                Err(held) => self.0.push(held),
            }
        }
        if self.0.len() > Self::MOST {
            self.0.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_back_later_and_no_more_than_some_is_waited_for() {
        let (mut lent, mut decoder) = (Lent::default(), Decoder::new());
        let pictures: Vec<_> = (0..6).map(|n| Arc::new(Picture::new(8 + n, 8))).collect();
        for (n, picture) in pictures.iter().enumerate() {
            lent.lend(picture.clone(), &mut decoder);
            assert_eq!(lent.0.len(), (n + 1).min(Lent::MOST));
        }
        drop(pictures);
        lent.lend(Arc::new(Picture::new(8, 8)), &mut decoder);
        assert!(lent.0.is_empty());
    }
}
