// The data tables of the panels of a job's chart.

import { dataTable } from "../data_table.js";
import { number, time } from "../format.js";
import { emitted } from "./chart_columns.js";

const column = (label, text) => ({ label, text });
const at = (part, key) => (index) => time(part()[key][index]);
const figure = (part, key) => (index) => number(part()[key][index]);

// `series()` returns the series shown; returns a function that renews the open tables.
export function tables(place, series) {
  const loss = () => series().loss;
  const energy = () => series().energy;
  const rho = () => series().rho;
  const evaluation = () => series().evaluation;
  const indices = (part, key) => () => part()[key].map((_, index) => index);
  const made = [
    dataTable(place, "ρ", [
      column("Epoch", figure(rho, "epoch")),
      column("From", at(rho, "start")),
      column("To", at(rho, "end")),
      column("ρ asked", figure(rho, "asked")),
      column("ρ reached", figure(rho, "reached")),
    ], indices(rho, "epoch")),
    dataTable(place, "Power, intensity and emissions", [
      column("From", at(energy, "start")),
      column("To", at(energy, "end")),
      column("W", figure(energy, "power_w")),
      column("gCO2e/kWh", figure(energy, "intensity_gco2e_per_kwh")),
      column("kWh so far", figure(energy, "energy_kwh")),
      column("of it without a price", figure(energy, "unpriced_kwh")),
      column("gCO2e so far", (index) => number(emitted(energy(), index))),
    ], indices(energy, "start")),
    dataTable(place, "Loss", [
      column("Step", (index) => String(loss().step[index])),
      column("At", at(loss, "at")),
      column("Loss", figure(loss, "value")),
      column("Mean of its stretch", figure(loss, "mean")),
    ], indices(loss, "step")),
    dataTable(place, "Evaluations", [
      column("Step", (index) => String(evaluation().step[index])),
      column("Epoch", figure(evaluation, "epoch")),
      column("At", at(evaluation, "at")),
      column("Loss", figure(evaluation, "loss")),
      column("Token accuracy", figure(evaluation, "accuracy")),
      column("ROUGE-L", figure(evaluation, "rouge_l")),
    ], indices(evaluation, "step")),
  ];
  return () => made.forEach((table) => table.renew());
}
