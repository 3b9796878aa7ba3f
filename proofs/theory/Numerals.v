(** * Greedy numerals in powers N, N-1, ..., 2, 1 (SPEC 2.5.1)

    Under the default tight rule everywhere the one path to offset [d] is a numeral of [d]: the
    first digit is [i = floor ((d + 1)^(1/N))], and the remainder [d - (i^N - 1)] is written the
    same way with one step less.  So [d] is the sum of [i_m^(N-m+1) - 1] over all [N] digits.  The
    first [N - 1] digits are the stripes chosen, and [i_N - 1] is the offset inside the final
    span. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality Completeness.
Import ListNotations.
Open Scope Z_scope.

(** ** Numerals *)

Fixpoint greedy (steps : nat) (d : Z) : list Z :=
  match steps with
  | O => []
  | S k =>
      let M := Z.of_nat (S k) in
      let i := root M (d + 1) in
      i :: greedy k (d - (i ^ M - 1))
  end.

Fixpoint value (digits : list Z) : Z :=
  match digits with
  | [] => 0
  | i :: rest => (i ^ Z.of_nat (length digits) - 1) + value rest
  end.

(** The digit of one step: at least 1, and its power is the largest that fits. *)
Lemma digit_spec : forall M d,
  0 < M -> 0 <= d -> let i := root M (d + 1) in 1 <= i /\ i ^ M <= d + 1 < (i + 1) ^ M.
Proof.
  intros M d M_pos d_nonneg. cbv zeta.
  destruct (root_spec M (d + 1) M_pos ltac:(lia)) as (_ & bounds). split; [| exact bounds].
  apply root_ge_iff; [exact M_pos | lia | lia |]. rewrite Z.pow_1_l; lia.
Qed.

Lemma greedy_length : forall N d, length (greedy N d) = N.
Proof.
  induction N as [| k IH]; intro d; cbn [greedy length]; [reflexivity |].
  f_equal. apply IH.
Qed.

(** The last digit, of power 1, takes whatever remains: so nothing is lost. *)
Theorem greedy_value : forall N d, (1 <= N)%nat -> 0 <= d -> value (greedy N d) = d.
Proof.
  induction N as [| k IH]; intros d some d_nonneg; [lia |].
  destruct (digit_spec (Z.of_nat (S k)) d ltac:(lia) d_nonneg) as (_ & fits & largest).
  cbn [greedy value length]. rewrite greedy_length.
  destruct k as [| k'].
  - cbn [greedy value]. change (Z.of_nat 1) with 1 in *. rewrite !Z.pow_1_r in *. lia.
  - rewrite IH by lia. lia.
Qed.

(** ** The tight schedule *)

(** The levels with [steps + 1], ..., 3, 2 steps left, tight and with the default exponents. *)
Fixpoint tight_levels (steps : nat) : list level :=
  match steps with
  | O => []
  | S k => default_tight (Z.of_nat k + 2) :: tight_levels k
  end.

Lemma tight_levels_length : forall k, length (tight_levels k) = k.
Proof. induction k as [| k IH]; cbn [tight_levels length]; [reflexivity | f_equal; exact IH]. Qed.

Lemma tight_levels_steps : forall k, steps_of (tight_levels k) = Z.of_nat (S k).
Proof. intro k. unfold steps_of. rewrite tight_levels_length. lia. Qed.

Lemma tight_levels_good : forall k, Forall good_level (tight_levels k).
Proof.
  induction k as [| k IH]; cbn [tight_levels]; constructor; [| exact IH].
  unfold default_tight, good_level, good_exponent. cbn [num den]. lia.
Qed.

Lemma tight_levels_partition : forall k, Forall partitioning (tight_levels k).
Proof. induction k as [| k IH]; cbn [tight_levels]; constructor; [exact I | exact IH]. Qed.

(** How far inside the final span of a path distance [d] lies. *)
Fixpoint final_offset (w : Z) (ls : list level) (n : segment) (path : list Z) (d : Z) : Z :=
  match ls, path with
  | l :: rest, i :: path' =>
      let s := span_of w (steps_of ls) l n i in
      final_offset 0 rest (segment_of w (steps_of ls) l n i) path' (d - near s)
  | _, _ => d
  end.

Lemma tight_choice_is_digit : forall M (n : segment) d,
  0 < M -> 0 <= d -> choice 0 M (default_tight M) n d = root M (d + 1).
Proof.
  intros M n d M_pos d_nonneg. cbn [choice default_tight]. unfold default_tight, last_stripe.
  cbn [num den held first_keys]. destruct (Z.leb_spec (d + 1) 0) as [none | some]; [lia |].
  rewrite Z.pow_1_r. f_equal. lia.
Qed.

(** The stripe chosen is the digit, its span begins at [i^M - 1], and the next level writes the
    distance that remains. *)
Theorem greedy_is_path_to : forall k (n : segment) d,
  0 <= d < n ->
  let path := path_to 0 (tight_levels k) n d in
  greedy (S k) d = path ++ [final_offset 0 (tight_levels k) n path d + 1].
Proof.
  induction k as [| k IH]; intros n d range; cbv zeta.
  - cbn [tight_levels path_to final_offset app greedy].
    destruct (digit_spec (Z.of_nat 1) d ltac:(lia) ltac:(lia)) as (_ & fits & largest).
    change (Z.of_nat 1) with 1 in *. rewrite !Z.pow_1_r in *. f_equal. lia.
  - set (M := Z.of_nat (S (S k))). set (l := default_tight M). set (i := root M (d + 1)).
    assert (M_pos : 0 < M) by lia.
    assert (same_levels : tight_levels (S k) = l :: tight_levels k).
    { cbn [tight_levels]. unfold l, M. do 2 f_equal. lia. }
    assert (same_steps : steps_of (l :: tight_levels k) = M).
    { rewrite <- same_levels. apply tight_levels_steps. }
    assert (digit : choice 0 M l n d = i) by (apply tight_choice_is_digit; lia).
    destruct (digit_spec M d M_pos ltac:(lia)) as (i_pos & fits & _). fold i in i_pos, fits.
    assert (l_good : good_level l) by (unfold l, default_tight; split; cbn [num den]; lia).
    assert (inside : within d (span_of 0 M l n i)).
    { apply (choice_spec 0 M l n d i M_pos l_good I); [lia | | symmetry; exact digit].
      rewrite window_0 by exact l_good. exact range. }
    assert (begins : near (span_of 0 M l n i) = i ^ M - 1).
    { unfold l, default_tight. cbn [span_of near].
      rewrite floor_power_integer by lia. reflexivity. }
    rewrite same_levels. cbn [path_to final_offset]. rewrite same_steps, digit.
    set (s := span_of 0 M l n i) in *.
    change (greedy (S (S k)) d) with (i :: greedy (S k) (d - (i ^ M - 1))).
    assert (held_s : held (segment_of 0 M l n i) = size s) by reflexivity.
    rewrite <- begins, (IH (segment_of 0 M l n i)) by (unfold within, size in *; lia). reflexivity.
Qed.

(** A tight level's choices and spans are the same with and without a window: the window only takes
    some of them away. *)
Lemma tight_path_without_window : forall k w (n : segment) path d,
  path_to w (tight_levels k) n d = path_to 0 (tight_levels k) n d /\
  final_offset w (tight_levels k) n path d = final_offset 0 (tight_levels k) n path d.
Proof. intros k w n path d. destruct k; destruct path; split; reflexivity. Qed.

(** The tight schedule of [N = k + 1] steps: outside the window, paths are numerals. *)
Theorem paths_are_numerals : forall k w (n : segment) d path,
  0 <= w -> first_window w (tight_levels k) <= d < n ->
  (leads w (tight_levels k) n path d <->
   greedy (S k) d = path ++ [final_offset w (tight_levels k) n path d + 1]).
Proof.
  intros k w n d path w_nonneg range.
  assert (some := first_window_nonneg _ w (tight_levels_good k) w_nonneg).
  assert (the_numeral := greedy_is_path_to k n d ltac:(lia)). cbv zeta in the_numeral.
  rewrite leads_iff_path_to
    by (apply tight_levels_good || apply tight_levels_partition || assumption).
  destruct (tight_path_without_window k w n path d) as [same_path same_offset].
  rewrite same_path, same_offset. split; intro same.
  - rewrite same. exact the_numeral.
  - rewrite the_numeral in same. apply app_inj_tail in same. symmetry. exact (proj1 same).
Qed.

(** The same for a query [t] and a key [j]: the path is the numeral of [t - j] without its last
    digit. *)
Corollary key_path_is_numeral : forall k w start t j path,
  let s := Schedule (tight_levels k) w in
  0 <= w -> start <= j <= t -> window_of s <= t - j ->
  (leads w (levels s) (seen start t) path (t - j) <-> path = removelast (greedy (S k) (t - j))).
Proof.
  intros k w start t j path s w_nonneg eligible outside.
  assert (range : first_window w (tight_levels k) <= t - j < seen start t)
    by exact (eligible_distance s start t j (proj1 eligible) outside).
  assert (some := first_window_nonneg _ w (tight_levels_good k) w_nonneg).
  assert (the_numeral := greedy_is_path_to k (seen start t) (t - j) ltac:(lia)).
  cbv zeta in the_numeral. rewrite the_numeral, removelast_last. cbn [levels s].
  rewrite leads_iff_path_to
    by (apply tight_levels_good || apply tight_levels_partition || assumption).
  destruct (tight_path_without_window k w (seen start t) path (t - j)) as [same_path _].
  rewrite same_path. reflexivity.
Qed.

(** Three steps, [d = 12]: [12 = (2^3 - 1) + (2^2 - 1) + (3 - 1)], the stripes 2 and 2, and the
    third key of the final span. *)
Example numeral_of_12 : greedy 3 12 = [2; 2; 3].
Proof. reflexivity. Qed.
