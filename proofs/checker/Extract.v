(** The checker as an OCaml program: [Z] and [nat] stay the inductive types of Coq, so what runs is
    what is proved. *)

From Coq Require Extraction ExtrOcamlBasic.
From Multistep Require Import Schedule Checker.

Extraction Language OCaml.
Extraction "coverage.ml" first_hole.
