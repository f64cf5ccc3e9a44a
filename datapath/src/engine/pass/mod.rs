//! To come: ways back into the kernel.
