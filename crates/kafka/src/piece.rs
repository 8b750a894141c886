//! What answers are made of. A file of its own, because the fuzz targets build the codecs without the platform, and have
//! bytes for it.

pub(crate) use mainstem::broker::Piece;
