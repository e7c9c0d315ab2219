// The values of the point nearest to the pointer. Without it, the titles in a figure name the lines.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);

const REACH = 20;  // points from the pointer

function value(axis, place) {
  const [low, high] = axis.log ? axis.ends.map(Math.log) : axis.ends;
  const amount = low + (place - axis.at[0]) / (axis.at[1] - axis.at[0]) * (high - low);
  const number = axis.log ? Math.exp(amount) : amount;
  return Math.abs(number) >= 1000 ? Math.round(number) : +number.toPrecision(4);
}

function places(series) {
  const marks = [...series.querySelectorAll("use")];
  if (marks.length) return marks.map(mark => [+mark.getAttribute("x"), +mark.getAttribute("y")]);
  const numbers = (series.querySelector("path")?.getAttribute("d") ?? "").match(/-?[\d.]+/g) ?? [];
  return numbers.flatMap((x, i) => i % 2 ? [] : [[+x, +numbers[i + 1]]]);
}

function pointsOf(svg) {
  return [...svg.querySelectorAll(".series")].flatMap(series => {
    const title = series.querySelector("title"), name = title.textContent;
    title.remove();  // the browser would show it, too
    const axes = JSON.parse(series.closest("[data-axes]")?.dataset.axes ?? "[]");
    return places(series).map(place => {
      const values = axes.map((axis, side) => `${axis.name} ${value(axis, place[side])}`).join(", ");
      return { place, text: values ? `${name}: ${values}` : name };
    });
  });
}

for (const svg of document.querySelectorAll("figure svg")) {
  const mark = document.createElementNS(svg.namespaceURI, "circle");
  mark.setAttribute("class", "mark");
  mark.setAttribute("r", 3.5);
  let points;
  const show = event => {
    points ??= pointsOf(svg);
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const far = point => Math.hypot(point.place[0] - x, point.place[1] - y);
    const nearest = points.reduce((a, b) => far(b) < far(a) ? b : a, points[0]);
    if (!nearest || far(nearest) > REACH) return hide();
    const [left, top] = nearest.place, at = new DOMPoint(left, top).matrixTransform(svg.getScreenCTM());
    mark.setAttribute("cx", left);
    mark.setAttribute("cy", top);
    svg.append(mark);
    tip.textContent = nearest.text;
    tip.hidden = false;
    tip.style.left = `${Math.max(4, Math.min(at.x + scrollX + 10, innerWidth + scrollX - tip.offsetWidth - 10))}px`;
    tip.style.top = `${at.y + scrollY - tip.offsetHeight - 10}px`;
  };
  const hide = () => { tip.hidden = true; mark.remove(); };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
}
