(** * The N-step stripe anchor schedule (SPEC 2)

    A segment of [n] keys is seen from its newest key: distance [d], [0 <= d < n], is the key
    [end - 1 - d], as in [Cut] of reference/include/multistep/schedule.hpp.  A span of distances
    [[near, far)] is the keys [[end - far, end - near)].  All of it is over the integers. *)

From Coq Require Import ZArith List Lia Bool.
Import ListNotations.
Open Scope Z_scope.

(** ** Exact powers (SPEC 2.1)

    What a floor and a ceiling of a rational power *are*, by their defining inequalities.  No
    function that computes them is trusted before it is proved to meet these (Powers.v). *)

Record ratio := Ratio { num : Z; den : Z }.

(** [x = y] as numbers, not as pairs: [4/2] is [2/1]. *)
Definition same_number (x y : ratio) : Prop := num x * den y = num y * den x.

(** [m = floor (i ^ e)] *)
Definition is_floor_power (i : Z) (e : ratio) (m : Z) : Prop :=
  0 <= m /\ m ^ den e <= i ^ num e < (m + 1) ^ den e.

(** [m = ceil (c * n ^ q)]: the smallest [m >= 0] with [(m v)^b >= u^b n^a], where [c = u/v] and
    [q = a/b] *)
Definition is_ceil_power (c : ratio) (n : Z) (q : ratio) (m : Z) : Prop :=
  0 <= m /\
  num c ^ den q * n ^ num q <= (m * den c) ^ den q /\
  forall m', 0 <= m' < m -> (m' * den c) ^ den q < num c ^ den q * n ^ num q.

(** The largest [m] with [m ^ b <= x], built bit by bit from the top. *)
Fixpoint root_bits (bits : nat) (b x m : Z) : Z :=
  match bits with
  | O => m
  | S k =>
      let m' := m + 2 ^ Z.of_nat k in
      root_bits k b x (if m' ^ b <=? x then m' else m)
  end.

Definition root (b x : Z) : Z :=
  root_bits (Z.to_nat (Z.log2 (Z.max 1 x) / b + 1)) b x 0.

(** The smallest [m >= 0] with [x <= m ^ b]. *)
Definition ceil_root (b x : Z) : Z :=
  let m := root b x in if m ^ b <? x then m + 1 else m.

Definition ceil_div (x y : Z) : Z := - (- x / y).

Definition floor_power (i : Z) (e : ratio) : Z := root (den e) (i ^ num e).

Definition ceil_power (c : ratio) (n : Z) (q : ratio) : Z :=
  ceil_div (ceil_root (den q) (num c ^ den q * n ^ num q)) (den c).

(** [c], the exponent of an aligned part: the smallest [c >= 0] with
    [2^(M (2c + 1)) >= h^(2 (M - 1))] for [M] steps left and a nominal length [h]. *)
Definition is_part_exponent (steps_left h c : Z) : Prop :=
  let reaches c := h ^ (2 * (steps_left - 1)) <= 2 ^ (steps_left * (2 * c + 1)) in
  0 <= c /\ reaches c /\ forall c', 0 <= c' < c -> ~ reaches c'.

Definition part_exponent (steps_left h : Z) : Z :=
  Z.max 0 (ceil_div (ceil_div (Z.log2_up (h ^ (2 * (steps_left - 1)))) steps_left - 1) 2).

(** ** Segments

    [held] keys, the newest of them [ends - 1]; [nominal] is the length that the aligned rule goes
    by.  Where a number is asked for, a segment stands for the number of its keys. *)

Record segment := Segment { held : Z; ends : Z; nominal : Z }.

Coercion held : segment >-> Z.

(** What query [t] searches, the keys [[start, t + 1)]. *)
Definition seen (start t : Z) : segment := Segment (t + 1 - start) (t + 1) (t + 1 - start).

(** The keys [[0, n)]. *)
Definition first_keys (n : Z) : segment := Segment n n n.

(** What [w] keys of a window leave. *)
Definition beyond (w : Z) (n : segment) : segment :=
  Segment (n - w) (ends n - w) (nominal n - w).

(** ** Levels, stripes and spans (SPEC 2.2, 2.3)

    A level knows its rule.  [steps_left] is [M = N - m + 1], the steps from it to the end. *)

Inductive level :=
| Tight (exponent : ratio)
| Power (exponent backward forward span_exponent : ratio)
| Even
| Aligned.

Record span := Span { near : Z; far : Z }.

Definition size (s : span) : Z := far s - near s.

Definition within (d : Z) (s : span) : Prop := near s <= d < far s.

(** The distance between anchors of the even rule: [ceil (n / ceil (n^(1/M)))]. *)
Definition stride (steps_left n : Z) : Z := ceil_div n (ceil_root steps_left n).

(** How many keys a part of the aligned rule has. *)
Definition part (steps_left : Z) (n : segment) : Z := 2 ^ part_exponent steps_left (nominal n).

(** Part [j] of the aligned rule is the keys [[j s, (j + 1) s)], [s] of them, cut with the segment.
    From the newest to the oldest the parts are stripes [1, 2, ...]: stripe [i] is this part. *)
Definition part_at (steps_left : Z) (n : segment) (i : Z) : Z :=
  (ends n - 1) / part steps_left n - (i - 1).

(** Stripe [i >= 1] of a segment; its anchor lies at distance [stripe - 1]. *)
Definition stripe (steps_left : Z) (l : level) (n : segment) (i : Z) : Z :=
  match l with
  | Tight e | Power e _ _ _ => floor_power i e
  | Even => (i - 1) * stride steps_left n + 1
  | Aligned =>
      ends n - Z.min (ends n) ((part_at steps_left n i + 1) * part steps_left n) + 1
  end.

(** The last stripe inside the segment, 0 where there is none: [floor (i^(a/b)) <= n] is
    [i^a < (n+1)^b]; the oldest part holds the oldest key, [ends n - n]. *)
Definition last_stripe (steps_left : Z) (l : level) (n : segment) : Z :=
  if n <=? 0 then 0
  else match l with
       | Tight e | Power e _ _ _ => root (num e) ((n + 1) ^ den e - 1)
       | Even => (n - 1) / stride steps_left n + 1
       | Aligned =>
           (ends n - 1) / part steps_left n - (ends n - n) / part steps_left n + 1
       end.

(** The newest keys that the window has (SPEC 2.4): all keys newer than stripe [w + 1], or [w] keys
    where level 1 is even or aligned. *)
Definition window (l : level) (w : Z) : Z :=
  match l with
  | Tight e | Power e _ _ _ => floor_power (w + 1) e - 1
  | Even | Aligned => w
  end.

(** Level 1 skips the stripes [1 ... w] of its window; an even or aligned level 1 cuts what the
    window leaves.  Every other level is the same with [w = 0]. *)
Definition first_stripe (w : Z) (l : level) : Z :=
  match l with
  | Tight _ | Power _ _ _ _ => w + 1
  | Even | Aligned => 1
  end.

Definition last_searched (w steps_left : Z) (l : level) (n : segment) : Z :=
  match l with
  | Tight _ | Power _ _ _ _ => last_stripe steps_left l n
  | Even | Aligned => last_stripe steps_left l (beyond w n)
  end.

(** The distance of the anchor of stripe [i], the key that is scored for it: an even or aligned
    level cuts what the window leaves. *)
Definition anchor (w steps_left : Z) (l : level) (n : segment) (i : Z) : Z :=
  match l with
  | Tight _ | Power _ _ _ _ => stripe steps_left l n i - 1
  | Even | Aligned => w + stripe steps_left l (beyond w n) i - 1
  end.

(** What stripe [i] of a segment stands for. *)
Definition span_of (w steps_left : Z) (l : level) (n : segment) (i : Z) : span :=
  match l with
  | Tight e =>
      Span (floor_power i e - 1) (Z.min n (floor_power (i + 1) e - 1))
  | Power e b f q =>
      Span (Z.max (window l w) (floor_power i e - 1 - ceil_power f n q))
           (Z.min n (floor_power i e + ceil_power b n q))
  | Even =>
      let s := stride steps_left (n - w) in
      Span (w + (i - 1) * s) (w + Z.min (n - w) (i * s))
  | Aligned =>
      let s := part steps_left (beyond w n) in
      let j := part_at steps_left (beyond w n) i in
      Span (ends n - Z.min (ends n - w) ((j + 1) * s)) (ends n - Z.max (ends n - n) (j * s))
  end.

Definition is_stripe (w steps_left : Z) (l : level) (n : segment) (i : Z) : Prop :=
  first_stripe w l <= i <= last_searched w steps_left l n.

(** That span as the next level's segment.  Below an aligned level the nominal length is the length
    of that level's parts, also for clipped ones. *)
Definition segment_of (w steps_left : Z) (l : level) (n : segment) (i : Z) : segment :=
  let s := span_of w steps_left l n i in
  Segment (size s) (ends n - near s)
    match l with
    | Tight _ | Power _ _ _ _ | Even => size s
    | Aligned => part steps_left (beyond w n)
    end.

(** ** Schedules, paths and coverage *)

(** [levels] are levels [1 ... N-1]; no level is dense attention, [N = 1]. *)
Record schedule := Schedule { levels : list level; window_index : Z }.

(** [M] of the first of the levels that remain. *)
Definition steps_of (ls : list level) : Z := Z.of_nat (length ls) + 1.

(** [leads w ls n path d]: in the segment [n] the choices [path], one stripe a level, end in a
    span that holds distance [d].  Inside a chosen span the next level starts anew, at the span's
    newest key, and without a window. *)
Fixpoint leads (w : Z) (ls : list level) (n : segment) (path : list Z) (d : Z) : Prop :=
  match ls, path with
  | [], [] => 0 <= d < n
  | l :: rest, i :: path' =>
      let s := span_of w (steps_of ls) l n i in
      is_stripe w (steps_of ls) l n i /\ within d s /\
      leads 0 rest (segment_of w (steps_of ls) l n i) path' (d - near s)
  | _, _ => False
  end.

(** How many of the newest keys every query attends. *)
Definition window_of (s : schedule) : Z :=
  match levels s with
  | [] => 0
  | l :: _ => window l (window_index s)
  end.

(** Query [t] with first eligible key [start] reaches key [j]: through the window, or by a path. *)
Definition reachable (s : schedule) (start t j : Z) : Prop :=
  let d := t - j in
  d < window_of s \/ exists path, leads (window_index s) (levels s) (seen start t) path d.

(** Structural non-exclusion of the context of the keys [[start, stop)]. *)
Definition covered (s : schedule) (start stop : Z) : Prop :=
  forall t j, start <= j <= t -> t < stop -> reachable s start t j.

(** ** Parameters in range (SPEC 9) *)

Definition good_exponent (e : ratio) : Prop := 0 < den e /\ den e <= num e.
Definition good_factor (c : ratio) : Prop := 0 < den c /\ 0 <= num c.
Definition good_span_exponent (q : ratio) : Prop := 0 < den q /\ 0 <= num q <= den q.

Definition good_level (l : level) : Prop :=
  match l with
  | Tight e => good_exponent e
  | Power e b f q => good_exponent e /\ good_factor b /\ good_factor f /\ good_span_exponent q
  | Even | Aligned => True
  end.

Definition good (s : schedule) : Prop := Forall good_level (levels s) /\ 0 <= window_index s.

(** ** Defaults: [e = M], [b = M], [f = 0], [q = (M-1)/M] *)

Definition default_tight (steps_left : Z) : level := Tight (Ratio steps_left 1).

Definition default_power (steps_left : Z) : level :=
  Power (Ratio steps_left 1) (Ratio steps_left 1) (Ratio 0 1) (Ratio (steps_left - 1) steps_left).
