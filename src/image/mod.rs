//! The image store: blobs by digest, unpacked layers, names, load and import, and the host image.
