(** The checkers as an OCaml program, and with them the definitions of Schedule.v: [Z] and [nat] stay
    the inductive types of Coq, so what runs is what is proved. *)

From Coq Require Extraction ExtrOcamlBasic.
From Multistep Require Import Schedule Checker SpanChecker.

Extraction Language OCaml.
Extraction "coverage.ml" first_hole hole_of table excluded_pairs
  seen window_of steps_of first_stripe last_searched anchor span_of segment_of
  floor_power ceil_power ceil_root part_exponent.
