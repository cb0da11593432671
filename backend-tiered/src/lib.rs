//! `TieredStorage`: small objects in a high-volume backend, large ones in a long-term backend.
