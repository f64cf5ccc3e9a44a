// The raw tree: an expression as it was written, before qualifiers are carried over and names looked up.
import type { Primitive, Span } from "./tree.js";

/** Qualifiers as they were written; what was not written is null. */
export interface Qualifiers {
  readonly protocol: string | null;
  readonly direction: "src" | "dst" | "either" | "both" | null;
  readonly type: "host" | "net" | "port" | "portrange" | "proto" | null;
  readonly span: Span;
}

/** What qualifiers apply to: an address, a number, a name, or several of them. */
export type RawId =
  | { readonly kind: "number"; readonly value: number; readonly span: Span }
  | { readonly kind: "name"; readonly text: string; readonly escaped: boolean; readonly span: Span }
  | { readonly kind: "dotted"; readonly text: string; readonly mask: RawMask | null; readonly span: Span }
  | { readonly kind: "ipv6"; readonly text: string; readonly bits: number | null; readonly span: Span }
  | { readonly kind: "mac"; readonly text: string; readonly span: Span }
  | { readonly kind: "aid"; readonly span: Span }
  | { readonly kind: "not"; readonly operand: RawId; readonly span: Span }
  | { readonly kind: "and" | "or"; readonly left: RawId; readonly right: RawId; readonly span: Span };

/** `/bits` or `mask dotted`. */
export type RawMask =
  | { readonly kind: "bits"; readonly bits: number; readonly span: Span }
  | { readonly kind: "dotted"; readonly text: string; readonly span: Span };

/** An expression as it was written. */
export type RawExpression =
  | {
      readonly kind: "and" | "or";
      readonly left: RawExpression;
      readonly right: RawExpression;
      readonly span: Span;
    }
  | { readonly kind: "not"; readonly operand: RawExpression; readonly span: Span }
  | { readonly kind: "group"; readonly inner: RawExpression; readonly span: Span }
  | { readonly kind: "qualified"; readonly qualifiers: Qualifiers; readonly id: RawId; readonly span: Span }
  | { readonly kind: "bare"; readonly id: RawId; readonly span: Span }
  | { readonly kind: "protocol"; readonly protocol: string; readonly span: Span }
  | {
      readonly kind: "cast";
      readonly protocol: string | null;
      readonly cast: "broadcast" | "multicast";
      readonly span: Span;
    }
  | { readonly kind: "primitive"; readonly primitive: Primitive; readonly span: Span };
