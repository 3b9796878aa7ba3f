(* The proved checker as a filter: a question a line, an answer a line.

     LENGTH START WINDOW_INDEX LEVEL...      LEVEL: tight:E  power:E:B:F:Q  even  aligned
     200 0 0 tight:3 even                    E, B, F, Q: integers or fractions as 20/11

   It answers "covered", or the first hole as "QUERY KEY".  All that is trusted here is the reading
   of a question and the writing of an answer; first_hole is extracted from Checker.v. *)

open Coverage

let rec positive_of_int n =
  if n = 1 then XH
  else if n land 1 = 1 then XI (positive_of_int (n lsr 1))
  else XO (positive_of_int (n lsr 1))

let rec int_of_positive = function
  | XH -> 1
  | XO p -> 2 * int_of_positive p
  | XI p -> (2 * int_of_positive p) + 1

let int_of_z = function
  | Z0 -> 0
  | Zpos p -> int_of_positive p
  | Zneg p -> -int_of_positive p

(* Only digits, and few enough for an int. *)
let natural text =
  let digit c = '0' <= c && c <= '9' in
  if text = "" || String.length text > 18 || not (String.for_all digit text) then
    failwith (text ^ ": a number is an integer in [0, 10^18)");
  int_of_string ("0u" ^ text)

let z_of_text text =
  match natural text with
  | 0 -> Z0
  | n -> Zpos (positive_of_int n)

let ratio_of_text text =
  match String.split_on_char '/' text with
  | [ num ] -> { num = z_of_text num; den = Zpos XH }
  | [ num; den ] when natural den > 0 -> { num = z_of_text num; den = z_of_text den }
  | _ -> failwith (text ^ ": a rational is an integer or a fraction as 20/11")

let level_of_text text =
  match String.split_on_char ':' text with
  | [ "tight"; e ] -> Tight (ratio_of_text e)
  | [ "power"; e; b; f; q ] ->
    Power (ratio_of_text e, ratio_of_text b, ratio_of_text f, ratio_of_text q)
  | [ "even" ] -> Even
  | [ "aligned" ] -> Aligned
  | _ -> failwith (text ^ ": a level is tight:E, power:E:B:F:Q, even or aligned")

let answer line =
  match List.filter (( <> ) "") (String.split_on_char ' ' line) with
  | length :: start :: window_index :: levels -> (
    let schedule =
      { levels = List.map level_of_text levels; window_index = z_of_text window_index }
    in
    match first_hole schedule (z_of_text start) (z_of_text length) with
    | None -> "covered"
    | Some (query, key) -> Printf.sprintf "%d %d" (int_of_z query) (int_of_z key))
  | _ -> failwith (line ^ ": a question is LENGTH START WINDOW_INDEX LEVEL...")

let () =
  try
    while true do
      print_endline (answer (input_line stdin))
    done
  with
  | End_of_file -> ()
  | Failure message ->
    prerr_endline ("checker: " ^ message);
    exit 2
