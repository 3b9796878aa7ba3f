(** * What one level costs

    A level that searches a segment of [n] keys with [M] steps left scores [O(n^(1/M))] anchors
    there, and its spans have [O(n^((M-1)/M))] keys.  The constants are explicit, and there are
    powers instead of roots: [x^M <= C n]. *)

From Coq Require Import ZArith List Lia.
From Multistep Require Import Schedule Powers Causality Numbers AmGm LowerBound Optimality.
Import ListNotations.
Open Scope Z_scope.

(** ** The levels this is about

    Tight, even and power with the default exponents; the factors are at most [K].  The aligned rule
    has a file of its own, AlignedCost.v. *)

Definition factor_at_most (K : Z) (c : ratio) : Prop := good_factor c /\ num c <= K * den c.

Definition standard_level (K M : Z) (l : level) : Prop :=
  good_level l /\
  match l with
  | Tight e => same_number e (Ratio M 1)
  | Power e b f q =>
      same_number e (Ratio M 1) /\ factor_at_most K b /\ factor_at_most K f /\
      same_number q (Ratio (M - 1) M)
  | Even => True
  | Aligned => False
  end.

(** As which numbers the exponents are written makes no difference. *)
Definition plain_level (K M : Z) (l : level) : Prop :=
  match l with
  | Tight e => e = Ratio M 1
  | Power e b f q =>
      e = Ratio M 1 /\ factor_at_most K b /\ factor_at_most K f /\ q = Ratio (M - 1) M
  | Even => True
  | Aligned => False
  end.

Lemma standard_level_is_plain : forall K M l,
  0 < M -> standard_level K M l -> exists l', alike l l' /\ plain_level K M l'.
Proof.
  intros K M l M_pos [l_good std]. destruct l as [e | e b f q | |].
  - exists (Tight (Ratio M 1)). split; [| reflexivity].
    right. split; [exact l_good | split; [split; cbn [num den]; lia | exact std]].
  - exists (Power (Ratio M 1) b f (Ratio (M - 1) M)).
    split; [now apply power_alike | now cbn [plain_level]].
  - exists Even. split; [now left | exact I].
  - contradiction.
Qed.

Fixpoint standard (K : Z) (ls : list level) : Prop :=
  match ls with
  | [] => True
  | l :: rest => standard_level K (steps_of ls) l /\ standard K rest
  end.

Lemma plain_level_is_good : forall K M l, 0 < M -> plain_level K M l -> good_level l.
Proof.
  intros K M l M_pos std. destruct l as [e | e b f q | |]; cbn [plain_level good_level] in *.
  - subst e. split; cbn [num den]; lia.
  - destruct std as (-> & [b_good _] & [f_good _] & ->).
    repeat split; cbn [num den]; try lia; apply b_good || apply f_good.
  - exact std.
  - contradiction.
Qed.

Lemma standard_is_good : forall K ls, standard K ls -> Forall good_level ls.
Proof.
  intros K ls. induction ls as [|l rest IH]; intros std; [constructor|].
  destruct std as [first later]. constructor; [|apply IH, later].
  exact (proj1 first).
Qed.

(** ** The anchors of one segment: [count^M <= 2^M n] *)

Lemma pow_mono : forall x y k, 0 <= x <= y -> x ^ k <= y ^ k.
Proof. intros x y k order. apply Z.pow_le_mono_l. exact order. Qed.

Lemma pow_at_least_1 : forall x k, 1 <= x -> 0 <= k -> 1 <= x ^ k.
Proof. intros x k x_pos k_nonneg. pose proof (Z.pow_pos_nonneg x k). lia. Qed.

(** Stripe [i^M] lies inside the segment. *)
Lemma power_stripe_inside : forall M (n : segment),
  0 < M -> 0 < n ->
  let last := last_stripe M (Tight (Ratio M 1)) n in 0 <= last /\ last ^ M <= n.
Proof.
  intros M n M_pos n_pos last.
  assert (e_good : good_exponent (Ratio M 1)) by (split; cbn [num den]; lia).
  assert (inside := last_stripe_spec M (Tight (Ratio M 1)) n).
  cbn [stripe] in inside.
  assert (first : 1 <= last).
  { apply inside; try assumption; try lia. rewrite floor_power_1 by exact e_good. lia. }
  split; [lia|].
  rewrite <- floor_power_integer by lia. apply inside; try assumption; unfold last in *; lia.
Qed.

(** [r <= 2 (r - 1)] unless [r = 1], and [(r - 1)^M < n]. *)
Lemma ceil_root_pow : forall M n, 0 < M -> 0 < n -> ceil_root M n ^ M <= 2 ^ M * n.
Proof.
  intros M n M_pos n_pos.
  destruct (ceil_root_spec M n M_pos) as (r_nonneg & _ & least); [lia|].
  set (r := ceil_root M n) in *.
  pose proof (pow_at_least_1 2 M ltac:(lia) ltac:(lia)) as power_pos.
  destruct (Z_le_gt_dec r 1) as [one|more].
  - apply Z.le_trans with (1 ^ M); [apply pow_mono; lia | rewrite Z.pow_1_l; nia].
  - apply Z.le_trans with ((2 * (r - 1)) ^ M); [apply pow_mono; lia|].
    rewrite Z.pow_mul_l. apply Z.mul_le_mono_nonneg_l; [lia|].
    assert (below : (r - 1) ^ M < n) by (apply least; lia). lia.
Qed.

Lemma plain_anchor_cost : forall K w M l (n : segment),
  0 < M -> 0 <= w -> 0 < n -> plain_level K M l -> anchor_count w M l n ^ M <= 2 ^ M * n.
Proof.
  intros K w M l n M_pos w_nonneg n_pos std.
  pose proof (pow_at_least_1 2 M ltac:(lia) ltac:(lia)) as power_pos.
  assert (powers : forall last, 0 <= last -> last ^ M <= n ->
            Z.max 0 (last - (w + 1) + 1) ^ M <= 2 ^ M * n).
  { intros last last_nonneg inside.
    apply Z.le_trans with (last ^ M); [apply pow_mono; lia | nia]. }
  destruct (power_stripe_inside M n M_pos n_pos) as [last_nonneg inside].
  destruct l as [e | e b f q | |]; cbn [plain_level] in std;
    unfold anchor_count; cbn [last_searched first_stripe].
  - subst e. apply powers; assumption.
  - destruct std as (-> & _). apply powers; assumption.
  - destruct (Z_le_gt_dec (n - w) 0) as [empty|nonempty].
    + rewrite last_stripe_empty by exact empty. cbn. rewrite Z.pow_0_l; lia.
    + apply Z.le_trans with (2 ^ M * (n - w)); [|nia].
      apply Z.le_trans with (ceil_root M (n - w) ^ M); [|apply ceil_root_pow; lia].
      pose proof (even_last_stripe M (beyond w n) M_pos) as few. cbn [held beyond] in few.
      apply pow_mono.
      pose proof (ceil_root_positive M (n - w) M_pos ltac:(lia)). lia.
  - contradiction.
Qed.

Lemma anchor_cost : forall K w M l (n : segment),
  0 < M -> 0 <= w -> 0 < n -> standard_level K M l -> anchor_count w M l n ^ M <= 2 ^ M * n.
Proof.
  intros K w M l n M_pos w_nonneg n_pos std.
  destruct (standard_level_is_plain K M l M_pos std) as (l' & same & plain).
  unfold anchor_count.
  rewrite (alike_last_searched w M l l' n same), (alike_first_stripe w l l' same).
  now apply (plain_anchor_cost K).
Qed.

(** ** The spans of one segment: [size^M <= G^M n^(M-1)]

    One number [G] that serves every level of [N] steps. *)

Definition growth (N K : Z) : Z := Z.max (2 ^ N) (5 * K).

Lemma growth_above : forall N K M, M <= N -> 2 ^ M <= growth N K /\ 5 * K <= growth N K.
Proof.
  intros N K M M_small. unfold growth.
  assert (powers : 2 ^ M <= 2 ^ N) by (apply Z.pow_le_mono_r; lia). lia.
Qed.

Lemma pow_swap : forall x a b, 0 <= a -> 0 <= b -> (x ^ a) ^ b = (x ^ b) ^ a.
Proof. intros x a b a_nonneg b_nonneg. rewrite <- !Z.pow_mul_r by lia. f_equal. lia. Qed.

(** [(i+1)^M - i^M <= 2^M i^(M-1)], by [(i+1)^(M+1) - i^(M+1) = (i+1) ((i+1)^M - i^M) + i^M]. *)
Lemma next_power : forall M i,
  0 < M -> 1 <= i -> (i + 1) ^ M - i ^ M <= (2 ^ M - 1) * i ^ (M - 1).
Proof.
  intros M i M_pos i_pos. replace M with (Z.succ (M - 1)) by lia.
  assert (k_nonneg : 0 <= M - 1) by lia. revert k_nonneg. generalize (M - 1). clear M M_pos.
  apply (natlike_ind (fun k => (i + 1) ^ Z.succ k - i ^ Z.succ k
                               <= (2 ^ Z.succ k - 1) * i ^ (Z.succ k - 1))).
  - cbn [Z.succ Z.add Z.sub Z.opp Z.pos_sub]. rewrite !Z.pow_1_r, Z.pow_0_r. lia.
  - intros k k_nonneg IH. replace (Z.succ (Z.succ k) - 1) with (Z.succ k) by lia.
    replace (Z.succ k - 1) with k in IH by lia.
    rewrite (Z.pow_succ_r (i + 1) (Z.succ k)), (Z.pow_succ_r i (Z.succ k)),
      (Z.pow_succ_r 2 (Z.succ k)) by lia.
    rewrite (Z.pow_succ_r i k) in * by lia.
    set (difference := (i + 1) ^ Z.succ k - i * i ^ k) in *.
    assert (power_pos : 0 <= i ^ k) by (apply Z.pow_nonneg; lia).
    pose proof (pow_at_least_1 2 (Z.succ k) ltac:(lia) ltac:(lia)) as two_pos.
    assert (grown : (i + 1) * difference <= (i + 1) * ((2 ^ Z.succ k - 1) * i ^ k))
      by (apply Z.mul_le_mono_nonneg_l; lia).
    assert (doubled : (i + 1) * ((2 ^ Z.succ k - 1) * i ^ k)
                      <= 2 * i * ((2 ^ Z.succ k - 1) * i ^ k)).
    { apply Z.mul_le_mono_nonneg_r; [apply Z.mul_nonneg_nonneg|]; lia. }
    replace ((i + 1) ^ Z.succ k) with (difference + i * i ^ k) by (unfold difference; lia).
    lia.
Qed.

Lemma tight_span_cost : forall M n i,
  0 < M -> 0 < n -> 1 <= i -> i ^ M <= n ->
  ((i + 1) ^ M - i ^ M) ^ M <= (2 ^ M) ^ M * n ^ (M - 1).
Proof.
  intros M n i M_pos n_pos i_pos inside.
  assert (grows : i ^ M <= (i + 1) ^ M) by (apply pow_mono; lia).
  apply Z.le_trans with ((2 ^ M * i ^ (M - 1)) ^ M).
  - apply pow_mono. pose proof (next_power M i M_pos i_pos) as next.
    assert (power_pos : 0 <= i ^ (M - 1)) by (apply Z.pow_nonneg; lia). lia.
  - rewrite Z.pow_mul_l, (pow_swap i) by lia.
    apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg, Z.pow_nonneg; lia|].
    apply pow_mono. split; [apply Z.pow_nonneg; lia | exact inside].
Qed.

Lemma stride_cost : forall M n,
  0 < M -> 0 < n -> stride M n ^ M <= (2 ^ M) ^ M * n ^ (M - 1).
Proof.
  intros M n M_pos n_pos. pose proof (stride_positive M n M_pos n_pos) as stride_pos.
  assert (root_pos := ceil_root_positive M n M_pos n_pos).
  apply Z.le_trans with ((ceil_root M n ^ (M - 1)) ^ M).
  { apply pow_mono. pose proof (stride_at_most_power M n M_pos n_pos). lia. }
  rewrite pow_swap by lia.
  apply Z.le_trans with ((2 ^ M * n) ^ (M - 1)).
  { apply pow_mono. split; [apply Z.pow_nonneg; lia | apply ceil_root_pow; lia]. }
  rewrite Z.pow_mul_l. apply Z.mul_le_mono_nonneg_r; [apply Z.pow_nonneg; lia|].
  apply Z.pow_le_mono_r; [apply Z.pow_pos_nonneg; lia | lia].
Qed.

(** [ceil (c n^q)] is at most one more than [x = floor (K n^q)]. *)
Lemma reach_cost : forall K c n q,
  0 < n -> good_span_exponent q -> factor_at_most K c ->
  ceil_power c n q <= root (den q) (K ^ den q * n ^ num q) + 1.
Proof.
  intros K c n q n_pos q_good [c_good c_small].
  assert (ranges := conj q_good c_good). destruct ranges as [[q_pos q_num] [c_pos c_num]].
  assert (power_nonneg : 0 <= K ^ den q * n ^ num q)
    by (apply Z.mul_nonneg_nonneg; apply Z.pow_nonneg; nia).
  destruct (root_spec (den q) _ q_pos power_nonneg) as (x_nonneg & _ & above).
  set (x := root (den q) (K ^ den q * n ^ num q)) in *.
  apply ceil_power_le_iff; try assumption; try lia.
  apply Z.le_trans with ((K * den c) ^ den q * n ^ num q).
  - apply Z.mul_le_mono_nonneg_r; [apply Z.pow_nonneg; lia | apply pow_mono; lia].
  - rewrite !Z.pow_mul_l.
    assert (den_power : 0 <= den c ^ den q) by (apply Z.pow_nonneg; lia). nia.
Qed.

(** A span of the power rule has at most [B + F + 1 <= 2 (x + 1) + 1 <= 5 x] keys. *)
Lemma power_span_cost : forall K b f n q,
  0 < n -> 1 <= K -> good_span_exponent q -> factor_at_most K b -> factor_at_most K f ->
  (ceil_power b n q + ceil_power f n q + 1) ^ den q <= (5 * K) ^ den q * n ^ num q.
Proof.
  intros K b f n q n_pos K_pos q_good b_small f_small.
  assert (q_range := q_good). destruct q_range as [q_pos q_num].
  assert (power_pos : 1 <= K ^ den q * n ^ num q).
  { pose proof (pow_at_least_1 K (den q) K_pos ltac:(lia)).
    pose proof (pow_at_least_1 n (num q) ltac:(lia) ltac:(lia)). nia. }
  assert (backward := reach_cost K b n q n_pos q_good b_small).
  assert (forward := reach_cost K f n q n_pos q_good f_small).
  assert (x_pos : 1 <= root (den q) (K ^ den q * n ^ num q))
    by (apply root_ge_iff; [lia | lia | lia | rewrite Z.pow_1_l by lia; exact power_pos]).
  destruct (root_spec (den q) (K ^ den q * n ^ num q) q_pos ltac:(lia)) as (_ & below & _).
  set (x := root (den q) (K ^ den q * n ^ num q)) in *.
  pose proof (ceil_power_nonneg b n q (proj1 b_small) q_good ltac:(lia)) as b_nonneg.
  pose proof (ceil_power_nonneg f n q (proj1 f_small) q_good ltac:(lia)) as f_nonneg.
  apply Z.le_trans with ((5 * x) ^ den q); [apply pow_mono; lia|].
  rewrite !Z.pow_mul_l, <- Z.mul_assoc.
  apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; lia | exact below].
Qed.

Lemma power_span_size : forall w M e b f q (n : segment) i,
  size (span_of w M (Power e b f q) n i) <= ceil_power b n q + ceil_power f n q + 1.
Proof. intros w M e b f q n i. cbn [span_of]. unfold size. cbn [near far]. lia. Qed.

Lemma plain_span_cost : forall N K w M l (n : segment) i,
  0 < M <= N -> 1 <= K -> 0 <= w -> 0 < n -> plain_level K M l -> is_stripe w M l n i ->
  size (span_of w M l n i) ^ M <= growth N K ^ M * n ^ (M - 1).
Proof.
  intros N K w M l n i [M_pos M_small] K_pos w_nonneg n_pos std chosen.
  assert (l_good := plain_level_is_good K M l M_pos std).
  assert (order := span_in_segment w M l n i M_pos l_good w_nonneg chosen).
  destruct (growth_above N K M M_small) as [above_two above_five].
  assert (raise : forall x c, 0 <= c <= growth N K -> 0 <= size (span_of w M l n i) <= x ->
            x ^ M <= c ^ M * n ^ (M - 1) ->
            size (span_of w M l n i) ^ M <= growth N K ^ M * n ^ (M - 1)).
  { intros x c c_small x_large bound.
    apply Z.le_trans with (x ^ M); [apply pow_mono; lia|].
    apply Z.le_trans with (1 := bound).
    apply Z.mul_le_mono_nonneg_r; [apply Z.pow_nonneg | apply pow_mono]; lia. }
  assert (two_nonneg : 0 <= 2 ^ M) by (apply Z.pow_nonneg; lia).
  assert (size_nonneg : 0 <= size (span_of w M l n i)) by (unfold size; lia).
  destruct (power_stripe_inside M n M_pos n_pos) as [last_nonneg last_inside].
  unfold is_stripe in chosen.
  destruct l as [e | e b f q | |]; cbn [plain_level first_stripe last_searched] in std, chosen.
  - subst e. apply (raise ((i + 1) ^ M - i ^ M) (2 ^ M)); [lia | split; [exact size_nonneg|] |].
    + cbn [span_of size near far]. unfold size. cbn [near far].
      rewrite !floor_power_integer by lia. lia.
    + apply tight_span_cost; try lia.
      apply Z.le_trans with (2 := last_inside). apply pow_mono. lia.
  - destruct std as (-> & b_small & f_small & ->).
    apply (raise (ceil_power b n (Ratio (M - 1) M) + ceil_power f n (Ratio (M - 1) M) + 1) (5 * K));
      [lia | split; [exact size_nonneg | apply power_span_size] |].
    apply power_span_cost; try assumption. split; cbn [num den]; lia.
  - destruct (Z_le_gt_dec (n - w) 0) as [empty|nonempty].
    { rewrite last_stripe_empty in chosen by exact empty. lia. }
    apply (raise (stride M (n - w)) (2 ^ M));
      [lia | split; [exact size_nonneg | apply even_span_size] |].
    apply Z.le_trans with ((2 ^ M) ^ M * (n - w) ^ (M - 1)); [apply stride_cost; lia|].
    apply Z.mul_le_mono_nonneg_l; [apply Z.pow_nonneg; lia | apply pow_mono; lia].
  - contradiction.
Qed.

Lemma span_cost : forall N K w M l (n : segment) i,
  0 < M <= N -> 1 <= K -> 0 <= w -> 0 < n -> standard_level K M l -> is_stripe w M l n i ->
  size (span_of w M l n i) ^ M <= growth N K ^ M * n ^ (M - 1).
Proof.
  intros N K w M l n i M_range K_pos w_nonneg n_pos std chosen.
  destruct (standard_level_is_plain K M l ltac:(lia) std) as (l' & same & plain).
  assert (i_pos := stripe_positive w M l n i w_nonneg chosen).
  rewrite (alike_span_of w M l l') by (assumption || lia).
  apply plain_span_cost; try assumption. now apply (alike_is_stripe w M l l').
Qed.
