// Generated from addon/src by `node addon/build.mjs`: do not edit.

/** The kernel of this machine. */
export declare class NativeKernel {
  /** The kernel of this machine; asks it nothing yet. */
   constructor()
  /** Effective capabilities of the calling thread by name, e.g. "CAP_NET_ADMIN". */
   capabilities(): Array<string>
  /** uname -r. */
   release(): string
}
