// What is filled in, as lines of JSON in a file; rows without points are left out.
document.getElementById("save").addEventListener("click", () => {
  const told = document.getElementById("told");
  const grader = document.getElementById("grader").value.trim();
  if (!grader) { told.textContent = "Write your name first."; return; }
  const lines = [];
  let open = 0;
  for (const part of document.querySelectorAll(".grade")) {
    const fields = [...part.querySelectorAll(".points")];
    if (fields.some((field) => field.value === "" || !field.checkValidity())) { open += 1; continue; }
    const row = JSON.parse(part.dataset.row);
    row.grader = grader;
    row.points = fields.map((field) => Number(field.value));
    row.comment = part.querySelector(".comment").value;
    lines.push(JSON.stringify(row));
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "application/jsonl" }));
  link.download = "grades.jsonl";
  link.click();
  told.textContent = `${lines.length} saved, ${open} without valid points.`;
});
