(** * The arithmetic and the geometric mean, over the integers

    [N^N * product cs <= (total cs)^N] for [N] numbers [cs >= 0]: neither root nor quotient. *)

From Coq Require Import ZArith List Lia.
Import ListNotations.
Open Scope Z_scope.

Definition total (cs : list Z) : Z := fold_right Z.add 0 cs.
Definition product (cs : list Z) : Z := fold_right Z.mul 1 cs.
Definition count {A : Type} (xs : list A) : Z := Z.of_nat (length xs).

Definition nonnegative (cs : list Z) : Prop := Forall (fun c => 0 <= c) cs.

Lemma count_nonneg : forall (A : Type) (xs : list A), 0 <= count xs.
Proof. intros A xs. unfold count. lia. Qed.

Lemma count_cons : forall (A : Type) (x : A) xs, count (x :: xs) = count xs + 1.
Proof. intros A x xs. unfold count. cbn [length]. lia. Qed.

Lemma count_repeat : forall (A : Type) (x : A) k, count (repeat x k) = Z.of_nat k.
Proof. intros A x k. unfold count. rewrite repeat_length. reflexivity. Qed.

Lemma total_repeat : forall c k, total (repeat c k) = Z.of_nat k * c.
Proof.
  intros c k. induction k as [|k IH]; [reflexivity|].
  cbn [repeat total fold_right]. fold (total (repeat c k)). rewrite IH. lia.
Qed.

Lemma total_map_add : forall (A : Type) (f g : A -> Z) xs,
  total (map (fun x => f x + g x) xs) = total (map f xs) + total (map g xs).
Proof.
  intros A f g xs. induction xs as [|x xs IH]; cbn [map total fold_right]; [reflexivity|].
  fold (total (map f xs)). fold (total (map g xs)). fold (total (map (fun x => f x + g x) xs)).
  rewrite IH. ring.
Qed.

Lemma total_map_times : forall (A : Type) (f : A -> Z) c xs,
  total (map (fun x => c * f x) xs) = c * total (map f xs).
Proof.
  intros A f c xs. induction xs as [|x xs IH]; cbn [map total fold_right]; [ring|].
  fold (total (map f xs)). fold (total (map (fun x => c * f x) xs)). rewrite IH. ring.
Qed.

Lemma total_nonneg : forall cs, nonnegative cs -> 0 <= total cs.
Proof. intros cs cs_nonneg. induction cs_nonneg; cbn; [lia|]. fold (total l). lia. Qed.

Lemma product_nonneg : forall cs, nonnegative cs -> 0 <= product cs.
Proof. intros cs cs_nonneg. induction cs_nonneg; cbn; [lia|]. fold (product l). nia. Qed.

(** The inequality of two weighted numbers, [(N+1) u^N v <= N u^(N+1) + v^(N+1)].  From [N] to
    [N + 1] the difference of its sides is multiplied by [v] and grows by [(N+1) u^N (v - u)^2]. *)
Lemma weighted_mean : forall N u v,
  0 <= N -> 0 <= u -> 0 <= v ->
  (N + 1) * u ^ N * v <= N * u ^ (N + 1) + v ^ (N + 1).
Proof.
  intros N u v N_nonneg u_nonneg v_nonneg. revert N N_nonneg.
  apply (natlike_ind (fun N => (N + 1) * u ^ N * v <= N * u ^ (N + 1) + v ^ (N + 1))).
  - cbn [Z.add]. rewrite Z.pow_0_r, Z.pow_1_r, Z.pow_1_r. lia.
  - intros N N_nonneg IH. unfold Z.succ.
    rewrite (Z.pow_add_r u (N + 1) 1), (Z.pow_add_r v (N + 1) 1), !Z.pow_1_r by lia.
    rewrite (Z.pow_add_r u N 1), Z.pow_1_r in * by lia.
    assert (growth : 0 <= (N + 1) * u ^ N * ((v - u) * (v - u))).
    { apply Z.mul_nonneg_nonneg; [|apply Z.square_nonneg].
      apply Z.mul_nonneg_nonneg; [lia | apply Z.pow_nonneg; lia]. }
    assert (times_v : (N + 1) * u ^ N * v * v <= (N * (u ^ N * u) + v ^ (N + 1)) * v)
      by (apply Z.mul_le_mono_nonneg_r; assumption).
    lia.
Qed.

(** One more number [x] beside [N] numbers of total [s]: the inequality above at [u = (N + 1) s] and
    [v = N (s + x)], divided by [N]. *)
Lemma one_more_number : forall N s x,
  0 <= N -> 0 <= s -> 0 <= x ->
  (N + 1) ^ (N + 1) * (s ^ N * x) <= N ^ N * (s + x) ^ (N + 1).
Proof.
  intros N s x N_nonneg s_nonneg x_nonneg.
  destruct (Z.eq_dec N 0) as [->|N_nonzero].
  { cbn [Z.add]. rewrite !Z.pow_0_r, !Z.pow_1_r. lia. }
  pose proof (weighted_mean N ((N + 1) * s) (N * (s + x))) as mean.
  rewrite !Z.pow_mul_l in mean.
  rewrite (Z.pow_add_r (N + 1) N 1), (Z.pow_add_r s N 1), (Z.pow_add_r N N 1),
    (Z.pow_add_r (s + x) N 1), !Z.pow_1_r in * by lia.
  apply (Z.mul_le_mono_pos_l _ _ N); [lia|].
  specialize (mean ltac:(lia) ltac:(lia) ltac:(lia)). lia.
Qed.

(** Take the numbers in one by one: multiply by [N^N], use the bound for the [N] numbers before,
    and divide by [N^N]. *)
Theorem mean_inequality : forall cs,
  nonnegative cs -> count cs ^ count cs * product cs <= total cs ^ count cs.
Proof.
  intros cs cs_nonneg. induction cs_nonneg as [|x cs x_nonneg cs_nonneg IH]; [cbn; lia|].
  rewrite count_cons. cbn [product total fold_right]. fold (product cs). fold (total cs).
  set (N := count cs) in *.
  assert (N_nonneg : 0 <= N) by apply count_nonneg.
  assert (weight_pos : 0 < N ^ N).
  { destruct (Z.eq_dec N 0) as [->|N_nonzero]; [reflexivity | apply Z.pow_pos_nonneg; lia]. }
  apply (Z.mul_le_mono_pos_l _ _ (N ^ N) weight_pos).
  pose proof (one_more_number N (total cs) x N_nonneg (total_nonneg cs cs_nonneg) x_nonneg) as more.
  assert (before : (N + 1) ^ (N + 1) * x * (N ^ N * product cs)
                    <= (N + 1) ^ (N + 1) * x * total cs ^ N).
  { apply Z.mul_le_mono_nonneg_l; [|exact IH].
    apply Z.mul_nonneg_nonneg; [apply Z.pow_nonneg|]; lia. }
  replace (x + total cs) with (total cs + x) by lia. lia.
Qed.
